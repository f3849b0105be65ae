"""What a person sees of a run: loss.csv, the progress bar and the loss curve."""

import csv
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from diffjax.errors import DiffjaxError
from diffjax.files import read_csv

COLUMNS = ("step", "loss", "images_per_second")
LINE_SECONDS = 30.0  # between lines where there is no terminal


class LossLog:
    """Writes loss.csv and moves the bar; rows past a resumed step are dropped.

    Where there is no terminal, a line is printed now and then in place of the bar.
    """

    def __init__(
        self, folder: Path, title: str, start: int, steps: int, console: Console
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "loss.csv"
        kept = [row for row in read_losses(self.path) if row[0] <= start]
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *kept])
        self._clock = time.perf_counter()
        self._title, self._step, self._steps = title, start, steps
        self._terminal = console.is_terminal
        self._printed = self._clock
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._terminal,
        )
        note = f"loss {kept[-1][1]:.4f}" if kept else ""
        self._task = self._progress.add_task(
            title, total=steps, completed=start, note=note
        )

    def __enter__(self) -> "LossLog":
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it stands."""
        if self._terminal:  # else rich would print an empty line
            self._progress.stop()

    def advance(self) -> None:
        """One step was sent off."""
        self._progress.advance(self._task)

    def write(self, step: int, loss: float, images: int) -> None:
        """A row: the mean loss and the speed of the ``images`` since the last row."""
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        speed = images / seconds
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([step, f"{loss:.6f}", f"{speed:.1f}"])
        note = f"loss {loss:.4f} · {speed:,.0f} images/s"
        self._progress.update(self._task, note=note)
        last = step == self._steps
        if not self._terminal and (last or now - self._printed > LINE_SECONDS):
            self._printed = now
            text = f"{self._title}: {step:,}/{self._steps:,} · {note}"
            if not last:
                left = (self._steps - step) * seconds / (step - self._step)
                text += f" · {timedelta(seconds=int(left))} left"
            self._progress.console.print(
                text, markup=False, highlight=False, soft_wrap=True
            )
        self._step = step


def read_losses(path: Path) -> list[tuple[int, float, float]]:
    """The rows of a loss.csv; none if there is no file."""
    if not path.exists():
        return []
    rows = []
    for where, row in read_csv(path, COLUMNS, "file of losses"):
        try:
            step, loss, speed = (row[column] for column in COLUMNS)
            rows.append((int(step), float(loss), float(speed)))
        except ValueError as error:
            raise DiffjaxError(
                f"{where}: {error!s:.200}. Remove the line; it is of a picture alone."
            ) from error
    return rows


def steps_made(folder: Path) -> int:
    """How many steps a phase has made, as far as its loss.csv tells."""
    rows = read_losses(folder / "loss.csv")
    return rows[-1][0] if rows else 0


def plot_losses(logs: Mapping[str, Path], path: Path) -> None:
    """A picture with one loss curve a phase, from their loss.csv files."""
    from matplotlib.figure import Figure  # without pyplot there is no global state

    figure = Figure(figsize=(5 * len(logs), 3.2), layout="constrained")
    for i, (title, log) in enumerate(logs.items(), start=1):
        axes = figure.add_subplot(1, len(logs), i)
        rows = read_losses(log)
        axes.plot([row[0] for row in rows], [row[1] for row in rows], linewidth=1)
        axes.set(title=title, xlabel="step", ylabel="loss")
        if rows and min(row[1] for row in rows) > 0:
            axes.set_yscale("log")
    figure.savefig(path, dpi=120)
