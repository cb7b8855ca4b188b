"""`python -m streamlib.simulation`."""

import typer

from streamlib.simulation.command import main

if __name__ == "__main__":
    typer.run(main)
