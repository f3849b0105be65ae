"""``python -m diffjax``."""

from diffjax.cli import main

main()
