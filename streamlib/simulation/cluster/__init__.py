"""A model of a Kafka cluster at the level of requests: state machines that can be read, without I/O and without clocks.

    basics.py             the words all of them use
    topics.py             logs and their leaders
    log.py                one partition: batches, producer states, transactions, what a reader may see
    producer_states.py    which batch of a producer comes next
    data_apis.py          writing, asking for offsets, deleting
    fetches.py            reading, and waiting for something to read
    transactions.py       the transaction coordinator, before and after KIP-890
    transaction_state.py  what it decides for one transactional id
    groups.py             the group coordinator, classic protocol
    group.py              one group: its states and generations
    members.py            who is in it
    offsets.py            committed offsets, with those that a transaction still holds back
    coordinators.py       which broker coordinates what
    cluster.py            who answers which request

What a real broker does is held against it by one suite of tests that runs on both (`tests/ports`).
"""
