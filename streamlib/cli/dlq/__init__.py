"""`streamlib dlq`: looks into topics of dead letters, and puts their records back.

command.py    the sub-commands
letters.py    a dead letter, as its headers tell it; which ones are asked for
replayed.py   which of a partition have been replayed, as a committed offset
reading.py    reads them from the topic
plan.py       what would be replayed, and to where
replay.py     replays them, a transaction for each so many
screen.py     tables and records on a terminal, or JSON
"""
