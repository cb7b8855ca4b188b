"""Orchestration over ports: what runs when, and what is committed together.

`worker.py` the loop of one worker, `membership.py` its place in the group, `transaction.py` the one commit point,
`restore.py` the way of a store back to its changelog's end, `failures.py` the one table that decides about errors,
`ports.py` all that is asked of Kafka, the disk and the clock.
"""
