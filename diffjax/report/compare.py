"""What `diffjax report` shows of some runs, as data: rows to compare, and evidence.

Runs are comparable if they are about the same data: split and fingerprint. Among
them each is compared with the first, image by image; see ``paired``.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np

from diffjax.errors import DiffjaxError
from diffjax.report.captions import CaptionGroup, caption_groups
from diffjax.report.paired import (
    Standing,
    mcnemar,
    paired_difference,
    standing,
)
from diffjax.report.run_report import ENDS, Row, RunReport, readable, run_report
from diffjax.report.shifts import Shifts, shifts
from diffjax.runs.folder import read_run
from diffjax.runs.header import read_header
from diffjax.runs.outcomes import Outcomes, outcomes
from diffjax.runs.run import Run
from diffjax.runs.winoground import TASKS, CaptionRun, read_caption_run


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Runs about the same data.

    Attributes:
        title: the name and split of the data.
        runs: in the order given; those with results are compared with the first that
            has any.
        standing: which of the runs with results leads; None if it is the only one.
        notes: sentences on what to keep in mind when comparing.
    """

    title: str
    runs: tuple[RunReport, ...]
    standing: Standing | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Runs by the data they are about.

    Attributes:
        groups: of classifications.
        shifts: models on images as they are and made worse, where there are any.
        captions: runs of `diffjax winoground`, by the examples they are about.
    """

    groups: tuple[Group, ...]
    shifts: tuple[Shifts, ...] = ()
    captions: tuple[CaptionGroup, ...] = ()

    @property
    def runs(self) -> tuple[RunReport, ...]:
        """All runs of classifications, group by group."""
        return tuple(run for group in self.groups for run in group.runs)

    @property
    def shortfalls(self) -> list[str]:
        """What to say of runs that are not complete."""
        told = [run.shortfall for run in self.runs]
        told += [run.shortfall for group in self.captions for run in group.runs]
        return [each for each in told if each is not None]

    @property
    def rows(self) -> list[Row]:
        """A row a run, with the same keys: proportions in [0, 1], None if unknown."""
        rows = [run.row for run in self.runs]
        rows += [run.row for group in self.captions for run in group.runs]
        keys = dict.fromkeys(key for row in rows for key in row)
        return [{key: row.get(key) for key in keys} for row in rows]


def read_report(
    paths: Sequence[str | os.PathLike[str]], *, errors: bool = True
) -> Report:
    """Read runs, complete or not.

    Args:
        paths: their folders.
        errors: with the curves that saved errors give; these may be large.

    Raises:
        DiffjaxError: if there is no run, one is given twice, or none has a result.
    """
    if not paths:
        raise DiffjaxError("Name at least one run to report on.")
    names = _names([Path(path) for path in paths])
    found: dict[tuple[str, ...], list[tuple[RunReport, Outcomes]]] = {}
    runs: list[Run] = []
    captions: list[tuple[str, CaptionRun]] = []
    for path, name in zip(paths, names, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever reads the run tells
            task = read_header(Path(path))["experiment"].get("task")
        if task in TASKS:
            captions.append((name, read_caption_run(Path(path))))
            continue
        run = read_run(path, errors=errors)
        results = outcomes(run)
        data = run.header["data"]
        # its name is how somebody spelled it
        key = tuple(str(data.get(part)) for part in ("split", "fingerprint"))
        found.setdefault(key, []).append((run_report(run, results, name), results))
        runs.append(run)
    made = Report(
        groups=tuple(map(_group, found.values())),
        shifts=shifts(runs),
        captions=caption_groups(captions),
    )
    nothing = [run.nothing for run in made.runs]
    nothing += [run.nothing for group in made.captions for run in group.runs]
    if all(nothing):
        raise DiffjaxError(str(nothing[0]))
    return made


def _group(members: Sequence[tuple[RunReport, Outcomes]]) -> Group:
    some = [member for member in members if len(member[1].labels)]
    first = (some or members)[0]
    name, split = first[0].row["dataset"], first[0].row["split"]
    compared = [replace(m[0], row=m[0].row | _comparison(m, first)) for m in members]
    return Group(
        title=str(name) if split is None else f"{name}, {split}",
        runs=tuple(compared),
        standing=_standing(some) if len(some) > 1 else None,
        notes=tuple(_notes(members)),
    )


def _standing(members: Sequence[tuple[RunReport, Outcomes]]) -> Standing:
    """How runs stand on the images that all of them classified."""
    shared = reduce(np.intersect1d, (found.indices for _, found in members))
    right = [found.correct[np.isin(found.indices, shared)] for _, found in members]
    return standing([run.name for run, _ in members], np.array(right))


def _comparison(
    member: tuple[RunReport, Outcomes], first: tuple[RunReport, Outcomes]
) -> Row:
    """Columns of the difference to the first run; none for that run itself."""
    if member is first:
        return {}
    _, mine, theirs = np.intersect1d(
        member[1].indices, first[1].indices, return_indices=True
    )
    row: Row = {"compared_with": first[0].name, "compared_images": len(mine)}
    if len(mine):
        right, others = member[1].correct[mine], first[1].correct[theirs]
        rate = paired_difference(right, others)
        row |= {
            f"difference{end}": value for end, value in zip(ENDS, rate, strict=True)
        }
        row["difference_p"] = mcnemar(right, others)
    return row


def _cost(row: Row) -> str:
    """What a run's decisions cost, and its prefilter's part, if that is known."""
    total, prefilter = row.get("flops_per_image"), row.get("prefilter_flops")
    if total is None:
        return ""
    part = 100 * float(prefilter or 0) / float(total)
    share = f", {part:.1f} % of them the prefilter's" if prefilter else ""
    return f"; {float(total):.3g} FLOPs an image{share}"


def _notes(members: Sequence[tuple[RunReport, Outcomes]]) -> list[str]:
    notes = []
    rows = [run.row for run, _ in members]
    for run, _ in members:
        row = run.row
        if run.nothing:
            notes.append(run.nothing)
            continue
        name, images = row["run"], int(row["images"] or 0)
        done = images + int(row["failed_images"] or 0)
        if row["status"] != "complete":
            notes.append(
                f"{name} is {row['status']}: {done:,} of {row['images_selected']:,} "
                "images are there."
            )
        if row["failed_images"]:
            notes.append(
                f"{name}: {row['failed_images']:,} of {done:,} images failed; they "
                "count neither as right nor as wrong."
            )
        if row["few_shot"]:
            notes.append(
                f"{name} is {row['few_shot']}: labels had a say in how it decides, so "
                "that it does not compare with zero-shot runs as an equal."
            )
        if row["prefilter"]:
            notes.append(
                f"{name} chose among the classes that a prefilter, {row['prefilter']}, "
                "had left of each image; its accuracy is that of both together."
            )
        for way in ("prefilter", "shortlist"):
            if rate := run.rate(f"{way}_recall"):
                low, high = 100 * rate.low, 100 * rate.high
                notes.append(
                    f"{name}: the {way} left {row[f'{way}_classes_per_image']:,.1f} "
                    f"classes an image, and the label among them for "
                    f"{100 * rate.value:.1f} % ({low:.1f} to {high:.1f})"
                    f"{_cost(row)}."
                )
        if row["labels_not_among_candidates"]:
            notes.append(
                f"{name}: {row['labels_not_among_candidates']:,} of {images:,} labels "
                "are not among its candidate classes; such images are wrong whatever "
                "it predicts."
            )
    indices = [found.indices for _, found in members if len(found.indices)]
    if any(not np.array_equal(indices[0], others) for others in indices):
        notes.append(
            "The runs did not classify the same images. The differences to the first "
            "run rest on the images that both did; the other columns do not compare "
            "strictly."
        )
    if len({row["candidates"] for row in rows}) > 1:
        notes.append(
            "The runs chose among different numbers of classes, so their accuracies "
            "do not compare strictly."
        )
    return notes


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, and of the folders above as many as tell them apart."""
    places = [path.resolve() for path in paths]
    if twice := [path for path in paths if places.count(path.resolve()) > 1]:
        raise DiffjaxError(f"The run {twice[0]} is given twice. Name each run once.")
    names = []
    for place in places:
        n = 1
        while sum(other.parts[-n:] == place.parts[-n:] for other in places) > 1:
            n += 1
        names.append(readable(Path(*place.parts[-n:])))
    return names
