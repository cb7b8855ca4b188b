"""Dead letters in topics: what their headers tell, and which came last. For `streamlib dlq` and the web console.

letters.py    a dead letter, and which ones are asked for
recent.py     the newest of some topics
"""
