"""`python -m embattle`."""

from embattle.cli import main

if __name__ == "__main__":
    main()
