"""The command line: parse, build one config, call one function.

Whatever is slow to import is imported inside the commands, so that ``--help`` answers
at once.
"""

import os
import sys

from diffjax.cli.ending import EXIT_INTERRUPTED, Ending, open_streams


def main() -> None:
    """Run the command line in a process of its own."""
    open_streams()
    ending = Ending()
    try:
        if not sys.stderr.isatty():
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from diffjax.cli.commands import group

        group(prog_name="diffjax", obj=ending)
    except BaseException as stop:
        # an interruption may arrive as another error, from where it was raised
        if ending.interrupted or getattr(stop, "code", None) == EXIT_INTERRUPTED:
            ending.now()
        raise
