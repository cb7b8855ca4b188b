"""What an application looks like at a moment, for the web console and `streamlib top`: plain values, as JSON.

worker.py        what one worker tells of itself
application.py   all workers put together
"""
