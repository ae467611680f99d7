"""Authorities over names outside the mesh. What is decided about their answers is in `kinfolk.tenure`."""
