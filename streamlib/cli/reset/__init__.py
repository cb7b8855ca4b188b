"""`streamlib reset`: an application begins anew, as Kafka's application reset tool does it.

command.py    the sub-command
plan.py       what it is about to do; asks the cluster, changes nothing
doing.py      does it
screen.py     says what it is about to do
"""
