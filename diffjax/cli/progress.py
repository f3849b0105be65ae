"""How far a batch of images is: a live bar on a terminal, a line an image elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

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

NAME_WIDTH = 24


class BatchProgress:
    """Counts the evaluations of a batch of images.

    All images are expected to need as many evaluations as the first, which the
    totals and the time left assume until an image has been finished.
    """

    def __init__(self, console: Console, n_images: int, *, quiet: bool = False) -> None:
        """Prepare for ``n_images`` images; ``quiet`` shows nothing at all."""
        self._console = console
        self._n_images = n_images
        self._live = console.is_terminal and not quiet
        self._lines = not self._live and not quiet
        self._image = 0
        self._name = ""
        self._before = 0  # evaluations of the images already finished
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
        total = self._before + (done + remaining) * (1 + left)
        self._bar.update(
            self._task,
            completed=self._before + done,
            total=total,
            count=f"{self._before + done:,}/{total:,} · {alive:,} alive",
        )

    def finish(self, result: str) -> None:
        """The current image is done."""
        self._before += self._now
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
