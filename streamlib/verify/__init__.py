"""Whether what an application has written is what it should have written; pure, asks nobody.

    inputs, up to the committed offsets --replay, in several orders--> what should be there
    outputs and changelogs -----------------------------------------> what is there     --judge--> report

history.py     what was read from the cluster
effects.py     the topology without what would reach out of it
replay.py      the tasks of production, in memory, over the inputs
orders.py      in which order the records of different partitions come
withheld.py    what waits in repartition topics
results.py     records by topic, partition and key: a lane
shapes.py      what of a topic's records can be compared
bindings.py    what counts of a topic if all replays agree on it
doubts.py      why what is there may rightly differ from every replay
graph.py       which subtopologies come after which
comparing.py   one lane: what is determined, whether it is so, and what is wrong
judging.py     all lanes of all topics
tally.py       what is counted of one topic
wording.py     bytes as text
hanging.py     open transactions: which of them will not end by themselves
report.py      the verdict

Records of different partitions meet in an order that nobody has written down. So the inputs are replayed in orders that
are as different as can be: what comes out the same each time is determined by the inputs and has to be there; of the
rest it is only known that it is possible.
"""
