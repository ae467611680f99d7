"""Pure state: values in, changes out. No clock, no randomness, no I/O, and nothing of the wire."""
