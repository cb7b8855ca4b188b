"""Stores: typed views (`stores.py`) over uncommitted writes (`overlay.py`) over committed bytes (`backend.py`)."""
