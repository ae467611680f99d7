"""What travels between two nodes: frames, codec, handshake, session. Bytes in, events out, no I/O."""
