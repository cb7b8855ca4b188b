"""What a worker shows of itself to browsers and other programs over HTTP; needs the extra `streamlib[web]`.

    server.py     a thread with an event loop of its own: it answers while a function holds the worker
    guard.py      who is let in: a token beyond this machine, names of this machine on it, and no frames
    probes.py     /metrics, /health and /ready
    login.py      from a token to a cookie
    stores/       what is in the stores of all workers

Everything else is a list of Starlette routes that the server is given; they are behind the guard.
"""
