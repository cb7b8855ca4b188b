"""The streams DSL: what a user writes, turned into a `Topology`.

`builder.py` where it begins, `kstream.py` streams and branches, `grouped.py` aggregations, `ktable.py` tables,
`repartition.py` the way through an internal topic, `functions.py` what is asked of user callables,
`processor.py` and `stores.py` the Processor API.
"""
