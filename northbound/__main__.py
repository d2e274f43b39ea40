"""``python -m northbound`` is ``tidegate``."""

from northbound.cli import main

# Worker processes import the main module again; they must not run the command.
if __name__ == "__main__":
    main()
