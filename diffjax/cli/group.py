"""The group of commands, and what they have in common: consoles, errors, JSON."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import click

from diffjax import __version__
from diffjax.cli.complaints import meaning
from diffjax.cli.ending import EXIT_INTERRUPTED, Ending
from diffjax.cli.help import Command
from diffjax.cli.options import switch
from diffjax.errors import DiffjaxError
from diffjax.files import json_text

if TYPE_CHECKING:
    from rich.console import Console

EXIT_BAD_INPUT = 2
LONG = 200  # letters, more than any first sentence has


class Failure(click.ClickException):
    """Bad input: one message, no traceback."""

    exit_code = EXIT_BAD_INPUT

    def show(self, file: Any = None) -> None:
        """Print the message."""
        click.echo(f"error: {self.message}", file=file or sys.stderr)


class Group(click.Group):
    """Commands whose known exceptions become messages and exit codes."""

    command_class = Command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write what each command does, in its whole first sentence."""
        names = self.list_commands(ctx)
        rows = [(name, self.commands[name].get_short_help_str(LONG)) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            with notes(partial(click.echo, err=True)):
                return super().invoke(ctx)
        except (click.ClickException, BrokenPipeError):
            raise  # a reader of a pipe has seen enough; click ends quietly
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except Exception as error:
            line = meant(error)
            if line is None:
                raise
            raise Failure(line) from error


def meant(error: Exception) -> str | None:
    """Return what to tell of an error; None for what nobody foresaw."""
    if isinstance(error, click.ClickException):
        return error.message
    if isinstance(error, DiffjaxError | OSError):  # a full disk, a closed folder
        return str(error)
    if isinstance(error, MemoryError):
        return "The memory does not hold this; use fewer samples or cells."
    return meaning(error)


@click.group(
    cls=Group,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="diffjax")
def group() -> None:
    """Classify images with a pretrained diffusion model, in JAX.

    \b
    diffjax demo                                  a few real images, right away
    diffjax classify cat.jpg --labels cat,dog     your own
    diffjax evaluate cifar10                      a whole data set
    """


def start() -> "tuple[Console, Console]":
    """Make a console on standard error, where notes go now, and standard output."""
    from rich.console import Console

    from diffjax.cli.terminal import Output, keep_compilations

    console = Console(stderr=True, markup=False)  # names may hold [brackets]
    show = partial(console.print, style="yellow", highlight=False, soft_wrap=True)
    click.get_current_context().with_resource(notes(show))
    keep_compilations()
    return console, Output()


@contextlib.contextmanager
def notes(show: Callable[[str], None]) -> Iterator[None]:
    """Show warnings as lines that begin with "note:", not as Python does."""

    def note(message: object, *_: object, **__: object) -> None:
        show(f"note: {message}")

    with warnings.catch_warnings():
        # meant for programmers, who see them when they run Python
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        # a user who asks twice is told twice
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = note
        yield


@contextlib.contextmanager
def loading(
    console: "Console", quiet: bool, what: str = "starting JAX"
) -> Iterator[None]:
    """Show a sign of life while something takes long."""
    from rich.text import Text

    with contextlib.nullcontext() if quiet else console.status(Text(what)):
        yield


def print_json(value: Any, *, indent: int | None = 1) -> None:
    """Print JSON, and nothing else, on standard output.

    Without an indent it is a line, which is printed at once: what is done is not lost
    if a later image is.
    """
    text = json_text(value, indent=indent)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # whoever reads it gets the same value all the same
        text = json_text(value, indent=indent, ascii=True)
    click.echo(text)


@runtime_checkable
class Growing(Protocol):
    """A run's folder, or another that grows."""

    path: Path

    @property
    def saved(self) -> int:
        """How many of its rows or files are there."""

    def flush(self) -> None:
        """Write what is not there yet."""


def keep(run: Growing, n: int) -> None:
    """Have a run's rows written, and counted, if the process is interrupted.

    Args:
        run: The run, or table of images, that is being written.
        n: How many rows it is to have.
    """
    ending = click.get_current_context().obj
    if isinstance(ending, Ending):  # else somebody else's process
        ending.keep(run.flush)
        ending.told = lambda: (
            f"{run.saved:,} of {n:,} saved in {run.path}; the same command goes on"
        )


def interrupted() -> bool:
    """Whether somebody has pressed Ctrl-C."""
    ending = click.get_current_context().obj
    return isinstance(ending, Ending) and ending.interrupted


partial_option = switch(
    "--allow-partial", "End well even if a run is in progress or damaged."
)


def fail_if_partial(shortfalls: Sequence[str | None], allowed: bool) -> None:
    """After everything else, say which runs are not complete, if any."""
    told = [each for each in shortfalls if each is not None]
    if told and not allowed:
        raise Failure("\n".join([*told, "--allow-partial accepts it."]))
    for each in told:
        click.echo(f"note: {each}", err=True)


def fail(failures: Sequence[str]) -> None:
    """After everything else, report the images that failed, if any."""
    if failures:
        raise Failure("\nerror: ".join(failures))
