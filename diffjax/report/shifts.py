"""What `diffjax report` shows of runs on images made worse, as data."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffjax.errors import DiffjaxError
from diffjax.files import json_text
from diffjax.runs.robustness import ALL, Point, robustness, same_model
from diffjax.runs.run import Run


@dataclass(frozen=True, kw_only=True, eq=False)
class Shifts:
    """Models on one data set, as it is and made worse.

    Attributes:
        title: the name and split of the data.
        points: of every model and kind of shift; none where they cannot be had.
        problem: why they cannot be had.
    """

    title: str
    points: tuple[Point, ...]
    problem: str | None = None

    @property
    def overall(self) -> tuple[Point, ...]:
        """Of each model the point over all of its shifts."""
        return tuple(point for point in self.points if point.shift == ALL)


def shifts(runs: Sequence[Run]) -> tuple[Shifts, ...]:
    """Comparisons of the models that have runs on images made worse, by data set."""
    models: dict[str, list[Run]] = {}
    for run in runs:
        models.setdefault(same_model(run), []).append(run)
    sets: dict[str, list[Run]] = {}
    for members in models.values():
        if any(run.header["experiment"].get("corrupt") for run in members):
            sets.setdefault(_data(members[0]), []).extend(members)
    return tuple(map(_compared, sets.values()))


def _compared(runs: Sequence[Run]) -> Shifts:
    header = runs[0].header
    name, split = header["experiment"].get("dataset"), header["data"].get("split")
    title = str(name or header["data"]["name"]) + (f", {split}" if split else "")
    try:
        return Shifts(title=title, points=tuple(robustness(runs)))
    except DiffjaxError as error:
        return Shifts(title=title, points=(), problem=str(error))


def _data(run: Run) -> str:
    header = run.header
    which = [header["experiment"].get(key) for key in ("dataset", "prefilter")]
    which += [header["data"].get("split"), header["classes"]]
    return json_text(which)
