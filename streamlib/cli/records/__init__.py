"""`streamlib produce` and `streamlib consume`: records as lines of JSON, into a topic and out of it.

lines     a line of JSON <-> a record
produce   reads lines, chooses partitions as Kafka's clients do, writes
consume   reads what is committed, prints lines
"""
