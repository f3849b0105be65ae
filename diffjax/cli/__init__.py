"""The command line: parse, build one config, call one function.

Whatever is slow to import is imported inside the commands, so that ``--help`` answers
at once.
"""

import os
import sys

from diffjax.cli.commands import group
from diffjax.cli.group import EXIT_INTERRUPTED


def main() -> None:
    """Run the command line in a process of its own."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        group(prog_name="diffjax")
    except SystemExit as stop:
        if stop.code != EXIT_INTERRUPTED:
            raise
        # not through the interpreter's end: it crashes when JAX is still computing
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)
