"""`streamlib top`: what the web console shows, in a terminal.

command.py   the sub-command
asking.py    asks a worker about the application
screen.py    what is drawn
"""
