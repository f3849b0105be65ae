"""The bar that every command shows on a terminal; elsewhere it is a line now and then.

⠋ cifar10 tiny ━━━━╸━━━━━━━━ 101/2,000 · 60.4 % ± 9.4 · 240 evals/s · 0:16:30 left
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column

from diffjax.runs.metrics import wilson

if TYPE_CHECKING:
    from diffjax.classify.progress import Progress as Known

NAME_WIDTH = 40
LINE_SECONDS = 30.0  # between lines where there is no terminal
REDRAW_SECONDS = 0.1
ENOUGH = 20  # images, before which an accuracy is noise


class Bar:
    """A bar that shows how far a command is: images, accuracy, speed, time left."""

    def __init__(
        self, console: Console, name: str, *, quiet: bool = False, lines: bool = True
    ) -> None:
        """Prepare a bar.

        Args:
            console: Where the bar goes, if that is a terminal, or a notebook that has
                ipywidgets.
            name: What is under way.
            quiet: Whether to show nothing at all.
            lines: Whether to tell now and then how far it is, where there is no
                terminal.
        """
        self._console = console
        self._name = name
        self._live = _redraws(console) and not quiet
        self._lines = not self._live and not quiet
        self._now_and_then = self._lines and lines
        self._begun: tuple[float, int, float] | None = None  # of the first tile
        self._done = -1
        self._shown = self._printed = time.monotonic()
        short = name if len(name) <= NAME_WIDTH else "…" + name[1 - NAME_WIDTH :]
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6)),
            TextColumn("{task.fields[state]}", markup=False),
            console=console,
            transient=True,
            redirect_stdout=False,  # stdout may be a file while stderr is a terminal
            disable=not self._live,
            expand=True,
        )
        self._task = self._bar.add_task(short, total=None, state="starting")

    def __enter__(self) -> "Bar":
        """Show the bar."""
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        if self._live:  # else rich would print an empty line
            self._bar.stop()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away for a while, so that something else can be printed."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def stage(self, what: str) -> None:
        """Say what is going on before the first evaluation."""
        self._bar.update(self._task, state=what)

    def line(self, text: str) -> None:
        """Print a line where there is no bar."""
        if self._lines:
            self._print(text)

    def show(self, known: "Known") -> None:
        """Show how far it is now."""
        now = time.monotonic()
        if self._done < 0 and known.before:
            text = f"{known.before:,} of {known.total:,} were done before"
            if self._live or self._now_and_then:
                self._print(f"{self._name}: {text}")
        if self._begun is None and (known.evaluations or known.done > known.before):
            self._begun = now, known.evaluations, known.completed
        done = known.done > self._done
        if now - self._printed > LINE_SECONDS or (done and known.done == known.total):
            self._printed = now
            if self._now_and_then:
                self._print(f"{self._name}: {self._text(known, now)}")
        if self._live and (done or now - self._shown > REDRAW_SECONDS):
            self._shown = now
            self._bar.update(
                self._task,
                completed=known.completed,
                total=known.total,
                state=self._text(known, now),
            )
        self._done = known.done

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _text(self, known: "Known", now: float) -> str:
        """123/10,000 · 61.2 % ± 2.9 · 240 evals/s · 1:02:03 left."""
        parts = [f"{known.done:,}/{known.total:,}"]
        if known.total == 1 and known.open:
            most = known.evaluations + known.remaining
            parts = [f"{known.evaluations:,}/{most:,}", f"{known.alive:,} alive"]
        if known.correct is not None and known.judged >= ENOUGH:
            parts.append(accuracy_text(known.correct, known.judged))
        if known.failed:
            parts.append(f"{known.failed:,} failed")
        start, evaluations, completed = self._begun or (now, 0, 0.0)
        if (seconds := now - start) > 0:
            if gained := known.evaluations - evaluations:
                parts.append(f"{gained / seconds:,.0f} evals/s")
            gone, left = known.completed - completed, known.total - known.completed
            if gone > 0 and left > 0:
                parts.append(f"{timedelta(seconds=int(seconds / gone * left))} left")
        return " · ".join(parts)


def accuracy_text(correct: int, n: int) -> str:
    """Write 61.2 % ± 2.9: half the width of the 95 % interval (Wilson)."""
    low, high = wilson(correct, n)
    return f"{100 * correct / n:.1f} % ± {50 * (high - low):.1f}"


def _redraws(console: Console) -> bool:
    """Whether a bar can be drawn over itself."""
    if console.is_jupyter:  # where rich draws it by ipywidgets
        return find_spec("ipywidgets") is not None
    return console.is_terminal
