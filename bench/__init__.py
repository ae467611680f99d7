"""Measurements: kinfolk beside the physical limit, its Python peers, Erlang, etcd and redis, in one run.

``make bench`` sets up an environment of its own and runs everything; ``make bench ONLY=lookup,calls`` a part.

A *workload* is one row of the table of goals. It has *contenders*, ours and the references; each stages its *agents*
(programs of their own, in Python or Erlang) and is then measured in rounds, one contender after the other in each.
Nothing here is part of the library, and nothing of the library knows of it.
"""
