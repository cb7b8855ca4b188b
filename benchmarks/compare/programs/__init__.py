"""The jobs, as each library has them written. Everything they need to know is in the environment (`peers.py`)."""
