"""The rim: sockets, TLS, tasks and timers of asyncio."""
