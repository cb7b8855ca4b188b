"""The streams DSL: what a user writes, turned into a `Topology`.

`builder.py` where it begins, `kstream.py` streams and branches, `grouped.py` aggregations, `ktable.py` tables,
`graph.py` how they are attached to each other and led through internal topics, `functions.py` which types user
functions say they return, `processor.py` and `stores.py` the Processor API.
"""
