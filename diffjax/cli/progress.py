"""How far a batch of images is: a live bar on a terminal, a line an image elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from diffjax.runs.metrics import wilson

if TYPE_CHECKING:
    from diffjax.evaluation.runner import Tally

NAME_WIDTH = 24
LINE_SECONDS = 30.0  # between lines where there is no terminal


class BatchProgress:
    """Counts the evaluations of a batch of images.

    The totals and the time left assume that the images to come need as many evaluations
    as those before them did, and the first ones as many as the first may.
    """

    def __init__(self, console: Console, n_images: int, *, quiet: bool = False) -> None:
        """Prepare for ``n_images`` images; ``quiet`` shows nothing at all."""
        self._console = console
        self._n_images = n_images
        self._live = console.is_terminal and not quiet
        self._lines = not self._live and not quiet
        self._image = 0
        self._name = ""
        self._finished = 0  # images
        self._before = 0  # their evaluations
        self._now = 0  # of the current one
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6)),
            TextColumn("{task.fields[count]}", markup=False),
            _Speed(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            redirect_stdout=False,  # stdout may be a file while stderr is a terminal
            disable=not self._live,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None, count="")

    def __enter__(self) -> "BatchProgress":
        """Show the bar."""
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._stop()

    def begin(self, name: str) -> None:
        """The next image."""
        self._image += 1
        self._name, self._now = name, 0
        short = name.rpartition("/")[2]
        if len(short) > NAME_WIDTH:
            short = "…" + short[1 - NAME_WIDTH :]
        self._bar.update(
            self._task,
            description=f"{self._image}/{self._n_images} {short}",
        )

    def stage(self, what: str) -> None:
        """What is going on before the first evaluation."""
        self._bar.update(self._task, count=what)

    def update(self, done: int, remaining: int, alive: int) -> None:
        """The current image's evaluations: done, to come at most; classes alive."""
        self._now = done
        left = self._n_images - self._image
        each = done + remaining
        usual = self._before / self._finished if self._finished else each
        total = self._before + each + round(left * usual)
        self._bar.update(
            self._task,
            completed=self._before + done,
            total=total,
            count=f"{self._before + done:,}/{total:,} · {alive:,} alive",
        )

    def finish(self, result: str) -> None:
        """The current image is done."""
        self._before += self._now
        self._finished += 1
        if self._lines:
            self._console.print(
                f"{self._image}/{self._n_images} {self._name}: {result}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Without the bar, so that something else can be printed."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        if self._live:
            self._bar.start()

    def _stop(self) -> None:
        if self._live:  # else rich would print an empty line
            self._bar.stop()


class _Speed(ProgressColumn):
    """Evaluations a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="progress.data.speed")


class EvaluationProgress:
    """How far a run is: images, running accuracy, speed, time left.

    On a terminal a bar; elsewhere a line now and then.
    """

    def __init__(self, console: Console, name: str, *, quiet: bool = False) -> None:
        """Prepare for the run of a name; ``quiet`` shows nothing at all."""
        self._console = console
        self._name = name
        self._live = console.is_terminal and not quiet
        self._lines = not self._live and not quiet
        self._clock = Clock()
        self._tally: Tally | None = None
        self._cells = 0  # evaluations, those of unfinished images too
        self._printed = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6)),
            TextColumn("{task.fields[state]}", markup=False),
            console=console,
            redirect_stdout=False,
            disable=not self._live,
            expand=True,
            transient=True,
        )
        self._task = self._bar.add_task(name, total=None, state="starting")

    def __enter__(self) -> "EvaluationProgress":
        """Show the bar."""
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        if self._live:
            self._bar.stop()

    def update(self, tally: "Tally") -> None:
        """One more image; the first call only tells where the run stands."""
        if self._tally is None:
            self._clock.begin(tally)
            if tally.done:
                self._print(f"{tally.done:,} of {tally.total:,} were done before")
        self._tally = tally
        self._show()
        last = tally.done == tally.total
        if self._lines and (last or time.monotonic() - self._printed > LINE_SECONDS):
            self._printed = time.monotonic()
            self._print(self._text())

    def _print(self, text: str) -> None:
        if self._live or self._lines:
            self._console.print(
                f"{self._name}: {text}", markup=False, highlight=False, soft_wrap=True
            )

    def tile(self, search: object, cells: int) -> None:
        """So many more evaluations are done."""
        self._cells += cells
        self._show()

    def _show(self) -> None:
        if self._live and self._tally is not None:
            tally = self._tally
            self._bar.update(
                self._task,
                completed=tally.done,
                total=tally.total,
                state=self._text(),
            )

    def _text(self) -> str:
        """123/10,000 · 61.2 % ± 2.9 · 240 evals/s · 1:02:03 left."""
        tally = self._tally
        assert tally is not None  # of every call
        parts = [f"{tally.done:,}/{tally.total:,}"]
        if tally.judged:
            parts.append(accuracy_text(tally.correct, tally.judged))
        if tally.failed:
            parts.append(f"{tally.failed:,} failed")
        parts += self._clock.texts(tally, self._cells)
        return " · ".join(parts)


class Clock:
    """Speed and time left, from when the clock began."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._before = 0

    def begin(self, tally: "Tally") -> None:
        """Start now; images that were done before took no time."""
        self._start, self._before = time.monotonic(), tally.done

    def texts(self, tally: "Tally", evaluations: int) -> list[str]:
        """Evaluations a second, and the time left, where they are known."""
        seconds = time.monotonic() - self._start
        texts = []
        if evaluations:
            texts.append(f"{evaluations / max(seconds, 1e-9):,.0f} evals/s")
        if (done := tally.done - self._before) and tally.done < tally.total:
            left = int(seconds / done * (tally.total - tally.done))
            texts.append(f"{timedelta(seconds=left)} left")
        return texts


def accuracy_text(correct: int, n: int) -> str:
    """61.2 % ± 2.9: half the width of the 95 % interval (Wilson)."""
    low, high = wilson(correct, n)
    return f"{100 * correct / n:.1f} % ± {50 * (high - low):.1f}"
