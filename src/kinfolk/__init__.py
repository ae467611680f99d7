"""Erlang-style processes for asyncio, in a cluster where every node knows every name."""
