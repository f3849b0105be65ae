"""Models by data sets: the table of a paper.

A row is a model; where one has several runs on the same data, a model and as much of
how it decided as tells these apart. A column is a data set. The best cell of a column
is marked only where it is told apart from every other; see ``paired``. With r[m, d] the
rank of row m by accuracy on data set d, equals sharing the mean of their ranks,

    mean rank of m = mean of r[m, d] over the complete d

A data set is complete if every row has a finished run on it, all on the same images:
ranks among others would not compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffjax.report.compare import Group
from diffjax.report.paired import Rate
from diffjax.report.run_report import RunReport

UNKNOWN = "unknown"  # a fingerprint of the paper's program's models
# what tells runs of one model apart: the first of these that does for all of them
LEVELS = (
    *((), ("method",), ("loss",), ("method", "loss"), ("strategy",)),
    ("strategy", "loss"),
    ("strategy", "loss", "weights", "prefilter", "shortlist", "seed"),
    ("run",),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A model on a data set.

    Attributes:
        rate: the accuracy; None if no image has a result.
        images: that it rests on.
        finished: whether the run is complete.
        best: whether it is told apart from every other in its column.
    """

    rate: Rate | None
    images: int
    finished: bool
    best: bool


@dataclass(frozen=True, kw_only=True)
class CrossTable:
    """Models by data sets.

    Attributes:
        rows: names of the m rows.
        columns: names of the d data sets.
        cells: [m][d], None where there is no run.
        complete: which columns are complete, [d].
        ranks: the mean rank of each row, [m]; None without a complete column.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    complete: tuple[bool, ...]
    ranks: tuple[float | None, ...]

    @property
    def crosses(self) -> bool:
        """Whether some row has runs on several data sets."""
        return any(sum(cell is not None for cell in row) > 1 for row in self.cells)


def cross_table(groups: Sequence[Group]) -> CrossTable:
    """The runs of all groups, by model and data."""
    names = _names(groups)
    rows = tuple(dict.fromkeys(name for each in names for name in each))
    found = [
        {name: _cell(run, group) for name, run in zip(each, group.runs, strict=True)}
        for each, group in zip(names, groups, strict=True)
    ]
    cells = tuple(tuple(column.get(row) for column in found) for row in rows)
    complete = tuple(
        len(column) == len(rows) > 1 and _comparable(group)
        for column, group in zip(found, groups, strict=True)
    )
    ranks = [
        _ranks([column[row].rate for row in rows])
        for column, whole in zip(found, complete, strict=True)
        if whole
    ]
    means = np.mean(ranks, axis=0).tolist() if ranks else [None] * len(rows)
    return CrossTable(
        rows=rows,
        columns=_apart(
            [group.title for group in groups],
            [str(group.runs[0].row["data_fingerprint"]) for group in groups],
        ),
        cells=cells,
        complete=complete,
        ranks=tuple(means),
    )


def _names(groups: Sequence[Group]) -> list[list[str]]:
    """The name of each run's row, by group."""
    models = [str(run.row["model"]) for group in groups for run in group.runs]
    prints = [
        str(run.row["model_fingerprint"]) for group in groups for run in group.runs
    ]
    # a model is known by its fingerprint, whatever its folder is called
    first = dict(reversed([*zip(prints, models, strict=True)]))
    models = [
        m if p == UNKNOWN else first[p] for p, m in zip(prints, models, strict=True)
    ]
    known = iter(_apart(models, prints))
    named = [[(next(known), run) for run in group.runs] for group in groups]
    for level in LEVELS:
        names = [[_label(*each, level) for each in members] for members in named]
        if all(len(set(each)) == len(each) for each in names):
            break
    return names


def _label(model: str, run: RunReport, level: Sequence[str]) -> str:
    row = run.row | {"method": str(run.row["strategy"] or "").partition(":")[0]}
    told = (f"{key} {row[key]}" if key == "seed" else row[key] for key in level)
    seen = str(row["few_shot"] or "").split()[:1]  # "few-shot" or "trained"
    return ", ".join([model, *seen, *(str(each) for each in told if each)])


def _apart(names: Sequence[str], fingerprints: Sequence[str]) -> tuple[str, ...]:
    """Names, with fingerprints where one name is of several things."""
    things: dict[str, set[str]] = {}
    for name, fingerprint in zip(names, fingerprints, strict=True):
        things.setdefault(name, set()).add(fingerprint)
    return tuple(
        name if len(things[name]) == 1 else f"{name} ({fingerprint[:6]})"
        for name, fingerprint in zip(names, fingerprints, strict=True)
    )


def _cell(run: RunReport, group: Group) -> Cell:
    return Cell(
        rate=run.accuracy,
        images=int(run.row["images"] or 0),
        finished=run.row["status"] == "complete",
        best=group.standing is not None and group.standing.winner == run.name,
    )


def _comparable(group: Group) -> bool:
    """Whether all runs are finished and have the same images."""
    shared = group.standing.images if group.standing else 0
    return shared > 0 and all(
        run.row["status"] == "complete" and run.row["images"] == shared
        for run in group.runs
    )


def _ranks(rates: Sequence[Rate | None]) -> list[float]:
    values = np.array([rate.value if rate else np.nan for rate in rates])
    above = (values[None] > values[:, None]).sum(axis=1)
    equal = (values[None] == values[:, None]).sum(axis=1)
    ranks: list[float] = (above + (equal + 1) / 2).tolist()
    return ranks
