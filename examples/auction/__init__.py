"""A live auction on three nodes: see README.md beside this file."""
