"""``--global-mesh``: one command in several processes, on all of their devices."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from diffjax.cli.complaints import meaning
from diffjax.cli.ending import EXIT_INTERRUPTED
from diffjax.cli.group import EXIT_BAD_INPUT
from diffjax.cli.options import Decorator, number, option, switch, together
from diffjax.errors import DiffjaxError

mesh_options: Decorator = together(
    switch(
        "--global-mesh",
        "One of several processes that run this same command on all of their "
        "devices together. Only process 0 shows results.",
    ),
    option(
        "--coordinator",
        "HOST:PORT",
        "Where process 0 is to be found, for --global-mesh.",
        show_default="found by JAX under Slurm, Open MPI and on TPU pods",
    ),
    number(
        "--process-index",
        "Which of the processes this is, from 0.",
        least=0,
        metavar="K",
        show_default="as the launcher tells",
    ),
    number(
        "--process-count", "How many there are.", show_default="as the launcher tells"
    ),
)


@contextmanager
def on_mesh(options: dict[str, Any]) -> Iterator[bool]:
    """Take ``mesh_options`` out of the options, and join the other processes if asked.

    After an error inside, the process ends without going through the interpreter's
    end, where it would wait for the others.

    Yields:
        Whether this process is to show results.

    Raises:
        DiffjaxError: If the options do not fit, or the processes do not meet.
    """
    asked = options.pop("global_mesh")
    names = ("coordinator", "process_index", "process_count")
    coordinator, index, count = (options.pop(name) for name in names)
    if not asked:
        if (coordinator, index, count) != (None, None, None):
            raise DiffjaxError(
                "--coordinator, --process-index and --process-count say how processes "
                "meet; give --global-mesh with them."
            )
        yield True
        return
    from diffjax.cli.distributed import abort, join, keep_output, leave
    from diffjax.evaluation.launchers import launched

    if coordinator is not None and None in (index, count):
        share = launched()
        index = share.index if index is None else index
        count = share.count if count is None else count
    options["devices"] = "global"
    keep_output()
    index = join(coordinator, index, count)
    try:
        yield index == 0
    except (DiffjaxError, OSError, click.ClickException) as error:
        click.echo(f"error: process {index}: {error}", err=True)
        abort(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        abort(EXIT_INTERRUPTED)
    except BaseException as error:
        line = meaning(error)
        if line is None:
            traceback.print_exc()
            abort(1)
        click.echo(f"error: process {index}: {line}", err=True)
        abort(EXIT_BAD_INPUT)
    leave()
