"""Accuracy on shifted images against accuracy on clean ones.

    x      accuracy on the clean images
    y      mean of the accuracies on the same images under each shift
    line   logit y = a + b logit x, fitted to the discriminative models
    ρ      y − line(x), effective robustness

Taori et al. 2020 (arXiv 2007.00644): models trained alike lie on a line; what lies
above it is more robust than its accuracy explains. An image is right on average over
the shifts or not, and images are independent, so the interval of y is that of a mean
over images: normal, 95 %. That of x is Wilson's. That of ρ is a bootstrap over images,
95 %: models share each draw of images, as far as they have seen them, and the line is
fitted anew.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, logit

from diffjax.classify.samples import few_shot
from diffjax.data.corruptions import CORRUPTIONS, parse_corruption
from diffjax.errors import DiffjaxError
from diffjax.files import json_text, read_csv
from diffjax.runs import spreadsheets
from diffjax.runs.metrics import Z, wilson
from diffjax.runs.outcomes import outcomes
from diffjax.runs.run import Run
from diffjax.runs.spreadsheets import plain

DRAWS = 2000  # of the bootstrap
ALL = "all"  # in place of a kind of shift: the mean over all shifts
KIND = "discriminative"  # of a baseline, in its header
FAMILIES = {
    KIND: "discriminative",
    "contrastive": "contrastive",
    "class": "diffusion, class-conditional",
    "text": "diffusion, text-to-image",
}

Line = tuple[float, float]  # a and b
SAME: dict[str, Callable[[Run], Any]] = {  # in all runs
    "data sets": lambda run: [
        run.header["experiment"].get("dataset"),
        run.header["data"].get("split"),
    ],
    "classes": lambda run: run.header["classes"],
    "candidates": lambda run: run.header["experiment"].get("prefilter"),
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model under one kind of shift; accuracies and 95 % intervals in [0, 1].

    Attributes:
        model: its name.
        family: its kind, a key of ``FAMILIES``.
        shift: a kind of corruption, over all of its severities, or ``ALL``; of
            ``natural``, another data set.
        shifts: how many shifts y is the mean of.
        images: that all of the model's runs have.
        clean, clean_low, clean_high: x.
        shifted, shifted_low, shifted_high: y.
        effective, effective_low, effective_high: ρ; None without a line.
    """

    model: str
    family: str
    shift: str
    shifts: int
    images: int
    clean: float
    clean_low: float
    clean_high: float
    shifted: float
    shifted_low: float
    shifted_high: float
    effective: float | None = None
    effective_low: float | None = None
    effective_high: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Correctness:
    """On which images a model is right, and on what share of a point's shifts.

    Attributes:
        point: without ρ.
        indices: of the n images that all of the model's runs have.
        clean: 0 or 1.
        shifted: in [0, 1].
    """

    point: Point
    indices: Int[np.ndarray, " n"]
    clean: Float[np.ndarray, " n"]
    shifted: Float[np.ndarray, " n"]


TYPES: dict[str, Callable[[str], Any]] = {  # of the attributes, from text
    **dict.fromkeys(Point.__dataclass_fields__, float),
    **dict.fromkeys(("model", "family", "shift"), plain),
    **dict.fromkeys(("shifts", "images"), int),
    **dict.fromkeys(
        ("effective", "effective_low", "effective_high"),
        lambda text: float(text) if text else None,
    ),
}


def robustness(runs: Sequence[Run]) -> list[Point]:
    """A point for each model and kind of shift, and one for all shifts.

    Args:
        runs: of one data set, clean and with --corrupt; a model's runs have the same
            settings, and all models the same shifts.

    Raises:
        DiffjaxError: if runs are about different data or classes, or one is missing
            or not finished.
    """
    groups: dict[str, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        shift = run.header["experiment"].get("corrupt") or ""
        members = groups[same_model(run)]
        if shift in members:
            raise DiffjaxError(
                f"{run.path} and {members[shift].path} are of the same model, settings "
                "and images. Name one of them."
            )
        members[shift] = run
    _check(groups)
    known = [right for members in groups.values() for right in _correctness(members)]
    lines = fit_lines([right.point for right in known])
    points = {id(right): right.point for right in known}
    for shift, line in lines.items():
        models = [right for right in known if right.point.shift == shift]
        for right, (low, high) in zip(models, _bootstrap(models), strict=True):
            p = right.point
            points[id(right)] = replace(
                p,
                effective=p.shifted - on_line(line, p.clean),
                effective_low=low,
                effective_high=high,
            )
    return list(points.values())


def fit_lines(points: Sequence[Point]) -> dict[str, Line]:
    """The line of each kind of shift; none where fewer than two models differ in x."""
    lines = {}
    for shift in dict.fromkeys(p.shift for p in points):
        known = [p for p in points if p.family == KIND and p.shift == shift]
        rows = [(p.clean, p.shifted, p.images) for p in known]
        line = _fit(*np.array(rows, float).reshape(-1, 3).T)
        if line is not None:
            lines[shift] = line
    return lines


def _fit(
    x: Float[np.ndarray, " m"], y: Float[np.ndarray, " m"], n: Float[np.ndarray, " m"]
) -> Line | None:
    """Through m models with accuracies x and y on n images."""
    x, y = _logit(x, n), _logit(y, n)
    if len(set(x.tolist())) < 2:
        return None
    slope, intercept = np.polyfit(x, y, 1)
    return float(intercept), float(slope)


def _bootstrap(models: Sequence[Correctness]) -> list[tuple[float, float]]:
    """The interval of each model's ρ."""
    images = np.unique(np.concatenate([each.indices for each in models]))
    places = [np.searchsorted(images, each.indices) for each in models]
    fitted = np.array([each.point.family == KIND for each in models])
    random = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        times = np.bincount(
            random.integers(len(images), size=len(images)), minlength=len(images)
        )
        weights = [times[place] for place in places]
        n = np.array([weight.sum() for weight in weights], float)
        if not n.all():
            continue  # a model with few images, of which none was drawn
        pairs = list(zip(models, weights, strict=True))
        x = np.array([each.clean @ weight for each, weight in pairs]) / n
        y = np.array([each.shifted @ weight for each, weight in pairs]) / n
        line = _fit(x[fitted], y[fitted], n[fitted])
        if line is not None:
            found.append(y - on_line(line, x))
    low, high = np.quantile(found, (0.025, 0.975), axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def csv_text(points: Sequence[Point]) -> str:
    """A line a point, with its attributes as columns."""
    return spreadsheets.csv_text([asdict(point) for point in points])


def read_points(path: str | Path) -> list[Point]:
    """What ``csv_text`` has written.

    Raises:
        DiffjaxError: if the file cannot be read, or its columns are others.
    """
    points = []
    for where, row in read_csv(path, [*TYPES], "file of points"):
        try:
            points.append(Point(**{name: TYPES[name](row[name]) for name in TYPES}))
        except (KeyError, ValueError) as error:
            raise DiffjaxError(
                f"{where} is not as `diffjax robustness` writes it: {error!s:.200}."
            ) from error
    return points


def _correctness(members: Mapping[str, Run]) -> Iterator[Correctness]:
    """The points of one model, and what they are of."""
    found = {shift: outcomes(run) for shift, run in members.items()}
    indices = reduce(np.intersect1d, (each.indices for each in found.values()))
    if not len(indices):
        first = members[""].path
        raise DiffjaxError(f"{first} and the runs beside it have no image in common.")
    right = {}
    for shift, each in found.items():
        order = np.argsort(each.indices)
        right[shift] = each.correct[order][np.isin(each.indices[order], indices)]
    n, k = len(indices), int(right[""].sum())
    low, high = wilson(k, n)
    model = members[""].header["model"]
    told = few_shot(members[""].config)
    seen = f" ({told.split()[0]})" if told else ""
    kinds = {shift: parse_corruption(shift).kind for shift in members if shift}
    for kind in (ALL, *CORRUPTIONS):
        shifts = [s for s in kinds if kind in (ALL, kinds[s])]
        if not shifts:
            continue
        shifted: np.ndarray = np.mean([right[shift] for shift in shifts], axis=0)
        mean, (least, most) = float(shifted.mean()), _interval(shifted)
        point = Point(
            model=f"{model['name']}{seen}",
            family=str(model.get("kind")),
            shift=kind,
            shifts=len(shifts),
            images=n,
            clean=k / n,
            clean_low=low,
            clean_high=high,
            shifted=mean,
            shifted_low=least,
            shifted_high=most,
        )
        clean = right[""].astype(float)
        yield Correctness(point=point, indices=indices, clean=clean, shifted=shifted)


def _interval(shifted: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Of the mean y: images are drawn, shifts are not."""
    n, mean = len(shifted), float(shifted.mean())
    spread = float(shifted.std(ddof=1)) if n > 1 else 0.0
    if spread == 0:  # all alike, which says something, but not everything
        return wilson(round(n * mean), n)
    half = Z * spread / sqrt(n)
    return max(0.0, mean - half), min(1.0, mean + half)


def _check(groups: Mapping[str, Mapping[str, Run]]) -> None:
    """Raise DiffjaxError unless models have the same data, classes and shifts."""
    if not groups:
        raise DiffjaxError("There are no runs.")
    runs = [run for members in groups.values() for run in members.values()]
    for what, same in SAME.items():
        kinds = {json_text(same(run), sort=True): run.path for run in runs}
        if len(kinds) > 1:
            one, other = list(kinds.values())[:2]
            raise DiffjaxError(f"{one} and {other} are about different {what}.")
    for run in runs:
        if run.shortfall is not None:
            raise DiffjaxError(run.shortfall)
    wanted = set().union(*groups.values())
    for members in groups.values():
        some = next(iter(members.values()))
        name = f"{some.header['model']['name']} ({some.path})"
        if missing := sorted({"", *wanted} - set(members)):
            how = f"--corrupt {missing[0]}" if missing[0] else "the clean images"
            raise DiffjaxError(
                f"{name} has no run with {how}, among {len(missing)} that are missing "
                "or have other settings. Evaluate it so, or leave the model out."
            )
    if wanted == {""}:
        raise DiffjaxError("All runs are about clean images; evaluate with --corrupt.")


def same_model(run: Run) -> str:
    """What a model's clean and shifted runs have in common."""
    header, experiment = run.header, run.header["experiment"]
    kept = {k: v for k, v in experiment.items() if k not in ("corrupt", "save_errors")}
    model = {key: header["model"].get(key) for key in ("name", "fingerprint")}
    return json_text([model, header["data"].get("split"), kept], sort=True)


def _logit(p: Any, n: Any) -> Any:
    return logit((n * p + 0.5) / (n + 1))  # finite at 0 and 1


def on_line(line: Line, x: Any) -> Any:
    """The y of a line at accuracies x."""
    a, b = line
    return expit(a + b * logit(np.clip(x, 1e-6, 1 - 1e-6)))
