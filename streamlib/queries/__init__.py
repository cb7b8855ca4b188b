"""Interactive queries: what is in the stores of a running application, and which worker can tell.

metadata.py    who has which stores; who has a key
"""
