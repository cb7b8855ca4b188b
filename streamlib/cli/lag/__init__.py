"""`streamlib lag`: how far an application is behind its inputs.

command.py    the sub-command
standing.py   asks the cluster
screen.py     the table
"""
