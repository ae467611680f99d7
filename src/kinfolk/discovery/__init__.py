"""Where the nodes of a cluster are: sources of addresses, looked at again and again."""
