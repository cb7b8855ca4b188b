"""`streamlib demo`: a word count that loses a worker on the way, and is right to the last word.

command.py     the command: broker, folders, signals
job.py         one run: topics, workers, lines, a crash, the end of the lag
verdict.py     did it hold?
word_count.py  the topology
lines.py       the text
"""
