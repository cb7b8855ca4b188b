"""`streamlib verify`: what an application has written against what it should have written.

command.py   the sub-command and its exit codes
job.py       one verification, from the connection to the report
moment.py    the offsets of a moment at which nothing is half committed
reading.py   what is in the topics
asking.py    open transactions
screen.py    the report on a terminal
"""
