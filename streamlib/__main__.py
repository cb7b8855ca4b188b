"""`python -m streamlib`: the same as the `streamlib` command."""

from streamlib.cli import main

if __name__ == "__main__":
    main()
