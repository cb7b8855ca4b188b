"""The topology: what is read, done and written, as plain values.

`nodes.py` the nodes and stores, `operators.py` what a processor does, `topology.py` the whole and its subtopologies,
`describe.py` its description in Kafka Streams' words, `builder.py` where it grows, `functions.py` what is asked of user
functions, `lifespans.py` what is open around them.
"""
