"""`streamlib diff`: what a changed topology does to what an application has kept in Kafka and on disk.

snapshot.py    a topology as JSON: what `streamlib topology --json` prints
alignment.py   which node of the one is which of the other, whatever they are called
changes.py     the differences, what each means, and what to do
screen.py      for a terminal, or in Markdown
command.py     the sub-command
"""
