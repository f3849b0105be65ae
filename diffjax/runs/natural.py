"""Accuracy on another data set of the same classes against that on the clean one.

    x, y, line, ρ   as in ``robustness``, with y of images that are not x's made worse:
                    ImageNet-V2, -A, -R or Sketch beside ImageNet

The classes to choose from are the same on both sides: x of ImageNet-A is the accuracy
on ImageNet among its 200 classes. Clean and shifted images are drawn independently of
each other in the bootstrap of ρ, and all models share each draw.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from jaxtyping import Bool, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.files import json_text
from diffjax.runs.metrics import wilson
from diffjax.runs.outcomes import Outcomes, outcomes
from diffjax.runs.robustness import DRAWS, Point, fit_lines, on_line
from diffjax.runs.run import Run

# of an experiment: what says which images and classes there are, and their prompts
ABOUT_DATA = (
    *("dataset", "split", "subset", "per_class", "subset_seed", "limit", "corrupt"),
    *("classes", "prompts", "classnames", "templates", "clip_name", "template"),
    *("max_pixels", "image_column", "label_column", "save_errors"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """One model on clean and on shifted images: which of them it gets right."""

    clean: Bool[np.ndarray, " n"]
    shifted: Bool[np.ndarray, " m"]
    point: Point


def natural_shifts(runs: Sequence[Run], clean: str) -> list[Point]:
    """A point for each model and other data set.

    Args:
        runs: of the clean data set and others. A model's have the same settings, and
            for each other one there is a clean one with its classes.
        clean: the name of the clean data set, as runs have it.

    Raises:
        DiffjaxError: if a run is missing or not finished, or all are of one data set.
    """
    for run in runs:
        if run.shortfall is not None:
            raise DiffjaxError(run.shortfall)
        if run.header["experiment"].get("corrupt") is not None:
            raise DiffjaxError(
                f"{run.path} is of images made worse; leave --clean out for these."
            )
    models: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        models[_same_model(run)].append(run)
    others = sorted({_dataset(run) for run in runs} - {clean})
    if len(others) == len({_dataset(run) for run in runs}):
        raise DiffjaxError(
            f"No run is of {clean}, which --clean names; they are of "
            f"{', '.join(others)}."
        )
    if not others:
        raise DiffjaxError(f"All runs are of {clean}; there is no other data set.")
    points = []
    for other in others:
        pairs = [_of(members, clean, other) for members in models.values()]
        points += _with_lines(_aligned(pairs, other))
    return points


def _of(members: Sequence[Run], clean: str, other: str) -> tuple[Run, Run]:
    """A model's run of another data set, and the clean one with its classes."""
    name = members[0].header["model"]["name"]
    shifted = [run for run in members if _dataset(run) == other]
    if len(shifted) != 1:
        raise DiffjaxError(
            f"{name} has {len(shifted)} runs of {other} with the settings of "
            f"{members[0].path}, and needs one. Evaluate it, or leave the model out."
        )
    wanted = _classes(shifted[0])
    found = [r for r in members if _dataset(r) == clean and _classes(r) == wanted]
    if len(found) != 1:
        raise DiffjaxError(
            f"{name} has {len(found)} runs of {clean} among the {len(wanted):,} "
            f"classes of {shifted[0].path}, and needs one: evaluate {clean} with "
            "--classes."
        )
    return found[0], shifted[0]


def _aligned(pairs: Sequence[tuple[Run, Run]], other: str) -> list[_Pair]:
    """The models on the images that all of them have."""
    sides = []
    for side in (0, 1):
        prints = {str(pair[side].header["data"].get("fingerprint")) for pair in pairs}
        if len(prints) > 1:
            raise DiffjaxError(
                f"{pairs[0][side].path} and other runs of its data set are of other "
                "files."
            )
        found = [outcomes(pair[side]) for pair in pairs]
        shared = reduce(np.intersect1d, (each.indices for each in found))
        if not len(shared):
            raise DiffjaxError(f"The runs beside {other} have no image in common.")
        sides.append([_right(each, shared) for each in found])
    made = []
    for (run, _), clean, shifted in zip(pairs, *sides, strict=True):
        model = run.header["model"]
        (x, *xs), (y, *ys) = _rate(clean), _rate(shifted)
        point = Point(
            model=str(model["name"]),
            family=str(model.get("kind")),
            shift=other,
            shifts=1,
            images=len(shifted),
            clean=x,
            clean_low=xs[0],
            clean_high=xs[1],
            shifted=y,
            shifted_low=ys[0],
            shifted_high=ys[1],
        )
        made.append(_Pair(clean=clean, shifted=shifted, point=point))
    return made


def _with_lines(pairs: Sequence[_Pair]) -> list[Point]:
    """The points, with ρ where there is a line."""
    points = [each.point for each in pairs]
    line = fit_lines(points).get(points[0].shift)
    if line is None:
        return points
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        x, y = (
            _drawn(np.array([getattr(each, side) for each in pairs]), random)
            for side in ("clean", "shifted")
        )
        again = [
            replace(p, clean=float(a), shifted=float(b))
            for p, a, b in zip(points, x, y, strict=True)
        ]
        fitted = fit_lines(again).get(points[0].shift)
        if fitted is not None:
            drawn.append(y - on_line(fitted, x))
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return [
        replace(
            p,
            effective=p.shifted - float(on_line(line, p.clean)),
            effective_low=float(a),
            effective_high=float(b),
        )
        for p, a, b in zip(points, low, high, strict=True)
    ]


def _drawn(
    right: Bool[np.ndarray, "m n"], random: np.random.Generator
) -> Float[np.ndarray, " m"]:
    """Accuracies on as many images, drawn with replacement, the same for all models."""
    n = right.shape[1]
    times = np.bincount(random.integers(n, size=n), minlength=n)
    mean: np.ndarray = right @ times / n
    return mean


def _right(found: Outcomes, shared: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    order = np.argsort(found.indices)
    right: np.ndarray = found.correct[order][np.isin(found.indices[order], shared)]
    return right


def _rate(right: Bool[np.ndarray, " n"]) -> tuple[float, float, float]:
    return (float(right.mean()), *wilson(int(right.sum()), len(right)))


def _dataset(run: Run) -> str:
    return str(run.header["experiment"].get("dataset"))


def _classes(run: Run) -> frozenset[str]:
    names = run.header["class_names"]
    return frozenset(str(names[c]) for c in run.header["classes"])


def _same_model(run: Run) -> str:
    """What a model's runs have in common, whatever data they are of."""
    header = run.header
    kept = {k: v for k, v in header["experiment"].items() if k not in ABOUT_DATA}
    model = {k: header["model"].get(k) for k in ("name", "weights", "kind")}
    return json_text([model, kept], sort=True)
