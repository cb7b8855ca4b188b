"""What is in the stores, over HTTP, whichever worker is asked.

routes.py     what is answered, and what an error is as an answer
inquiry.py    what a request asks for, looked through
listing.py    rows of several partitions, wherever they are
elsewhere.py  asks the worker that has what is not here
"""
