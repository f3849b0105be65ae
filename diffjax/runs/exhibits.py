"""A table or figure of the paper: its numbers, and how they are measured here."""

from dataclasses import dataclass
from typing import Literal

PAPER = "paper"  # in place of a strategy: the preset's own, and its loss
PAIRS = "winoground"  # in place of a preset: the examples of Winoground
SCENES = "scene-pairs"  # the same, of our own in its format


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How a number is measured, and so which runs have measured it.

    Attributes:
        data: a preset, or ``PAIRS`` or ``SCENES``.
        model: as it is named for the command.
        strategy: ``PAPER``, or as ``parse_strategy`` reads it; None where a model sees
            an image once.
        loss: that decides, unless it is the preset's of the paper.
        metric: a key of a run's metrics; of ``PAIRS`` a tag, or "" for all examples.
        classes: a class list of the package, where it is not the preset's.
        counted: whether evaluations can be told without the data set.
        kind: "decision"; "timestep" of one by that timestep alone, or the nearest that
            the run has; "head" of one that is trained on features; or "filter" of the
            share of images that filters leave. The metric names timestep or filters.
    """

    data: str
    model: str
    strategy: str | None = None
    loss: str | None = None
    metric: str = "acc1"
    classes: str | None = None
    counted: bool = True
    kind: Literal["decision", "timestep", "head", "filter"] = "decision"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table, or what stands for a figure.

    Attributes:
        title: as the paper has it.
        paper: numbers in percent, or whole ones of something else, a column each; None
            where there is none.
        commands: which measure them.
        measures: a column each; None where no run's accuracy is the number.
    """

    title: str
    paper: tuple[float | int | None, ...]
    commands: tuple[str, ...] = ()
    measures: tuple[Measure | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A table or figure of the paper.

    Attributes:
        name: on the command line.
        title: what it shows.
        columns: heads of the numbers.
        rows: of the table.
        read_off: whether numbers are read off a figure.
        commands: which belong to no row alone.
        takes: what they evaluate; None where they evaluate nothing.
        small: commands that do the like with the models of the package.
        counterparts: what these measure, by whatever strategy and loss.
        notes: what a reader should know.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    read_off: bool = False
    commands: tuple[str, ...] = ()
    takes: Measure | None = None
    small: tuple[str, ...] = ()
    counterparts: tuple[Measure, ...] = ()
    notes: tuple[str, ...] = ()
