"""``python -m northbound`` is ``tidegate``."""

from northbound.cli import main

main()
