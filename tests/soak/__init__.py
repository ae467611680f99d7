"""The soak: a cluster under steady work and steady faults for as long as you like."""
