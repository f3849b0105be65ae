"""Which examples of a source are used: by index, by class, by number."""

import os
import re
from collections.abc import Sequence
from math import gcd, isqrt
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from diffjax.data.arrays import read_npy
from diffjax.data.sources import Source
from diffjax.errors import DiffjaxError
from diffjax.files import PathLike, user_path

_RANGE = re.compile(r"(\d{1,12})(?::(\d{1,12}))?")


def select(
    source: Source,
    subset: PathLike | None = None,
    per_class: int | None = None,
    seed: int = 0,
    *,
    classes: Sequence[int] | None = None,
) -> Int64[np.ndarray, " n"]:
    """The indices of the examples to use; all of them by default.

    The ways to choose apply one after the other: subset, classes, per_class.

    Args:
        source: what is chosen from.
        subset: a .npy file of indices, or ranges as in "0:100,200:300,7", whose ends
            are not included.
        per_class: this many of each class that occurs, drawn without replacement.
        seed: of that draw. What is drawn of a class does not depend on the others,
            and a larger ``per_class`` adds to what a smaller one draws.
        classes: only examples of these classes.

    Returns:
        Indices into the source, ascending, each once.

    Raises:
        DiffjaxError: if an argument is malformed, an index lies outside the source, a
            class has too few examples, or nothing is chosen.
    """
    chosen = np.arange(len(source), dtype=np.int64)
    if subset is not None:
        chosen = _indices(os.fspath(subset), source)
    if classes is not None:
        chosen = chosen[np.isin(source.labels()[chosen], list(classes))]
        if not len(chosen):
            raise DiffjaxError("None of the images is of the classes to choose from.")
    if per_class is not None:
        chosen = _draw(source, chosen, per_class, seed)
    return chosen


def limited(
    chosen: Int64[np.ndarray, " n"], limit: int | None, *, nested: bool = True
) -> Int64[np.ndarray, " m"]:
    """At most so many of the chosen indices, evenly spread over them.

    All classes stay in, however the source is sorted. A larger limit keeps what a
    smaller one takes, see ``spread``.

    Args:
        chosen: ascending.
        limit: the number; None for all.
        nested: whether it is so; otherwise those at ⌊i·n/limit⌋ are taken, which
            differ from limit to limit, as by versions that knew nothing else.

    Raises:
        DiffjaxError: if the limit is less than 1.
    """
    n = len(chosen)
    if limit is None:
        return chosen
    if limit < 1:
        raise DiffjaxError(f"The limit must be at least 1 image, not {limit}.")
    if limit >= n:
        return chosen
    places = spread(n)[:limit] if nested else np.arange(limit) * n // limit
    taken: Int64[np.ndarray, " m"] = chosen[np.sort(places)]
    return taken


def spread(n: int) -> Int64[np.ndarray, " n"]:
    """An order of 0 … n − 1 of which every beginning is evenly spread.

    Place i has i·s mod n. How even the beginnings are depends on the continued fraction
    of s/n: its terms should be small (Zaremba 1966). Those of the golden ratio are all
    1, so s is sought near n/φ, the number with the smallest largest term. As s is prime
    to n, whatever repeats in the source with a period that divides n is met evenly too,
    such as classes that take turns.
    """
    golden, wide = round(n * (5**0.5 - 1) / 2), 2 * isqrt(n) + 2
    near = range(max(1, golden - wide), min(n, golden + wide) + 1)
    step = min(
        (s for s in near if gcd(s, n) == 1),
        key=lambda s: (max(_terms(s, n)), abs(s - golden)),
    )
    order: Int64[np.ndarray, " n"] = np.arange(n, dtype=np.int64) * step % n
    return order


def _terms(s: int, n: int) -> list[int]:
    """The continued fraction of s/n."""
    terms = []
    while s:
        terms.append(n // s)
        s, n = n % s, s
    return terms


def _draw(
    source: Source, chosen: Int64[np.ndarray, " n"], per_class: int, seed: int
) -> Int64[np.ndarray, " m"]:
    """per_class of each class among the chosen indices."""
    if per_class < 1:
        raise DiffjaxError(f"Draw at least 1 example per class, not {per_class}.")
    if seed < 0:
        raise DiffjaxError(f"The seed must not be negative, and {seed} is.")
    labels = source.labels()[chosen]
    drawn = []
    for label in np.unique(labels):
        members = chosen[labels == label]
        if len(members) < per_class:
            raise DiffjaxError(
                f"Class {source.class_names[label]!r} has only {len(members)} of the "
                f"{per_class} examples per class. Ask for {len(members)} at most."
            )
        # the class stands in the seed, so that classes do not disturb each other
        order = np.random.default_rng([seed, int(label)]).permutation(len(members))
        drawn.append(members[order[:per_class]])
    return np.sort(np.concatenate(drawn))


def _indices(subset: str, source: Source) -> Int64[np.ndarray, " n"]:
    """The ascending indices that a file or a text of ranges names."""
    if subset.lower().endswith(".npy"):
        indices = np.unique(_read_indices(user_path(subset)))
        if indices.size == 0:
            raise DiffjaxError(f"{subset} chooses nothing: it holds no indices.")
        for index in indices[[0, -1]]:
            _check(int(index), subset, source)
        return indices
    parts = []
    for part in map(str.strip, subset.split(",")):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise DiffjaxError(
                f"The subset {subset!r} is neither a .npy file nor ranges as in "
                f"'0:100,200:300,7': {part!r} is not one."
            )
        start = int(match[1])
        end = start + 1 if match[2] is None else int(match[2])
        if end <= start:
            raise DiffjaxError(
                f"The range {part!r} in the subset {subset!r} is empty: its end must "
                "lie above its start."
            )
        _check(end - 1, subset, source)
        parts.append(np.arange(start, end, dtype=np.int64))
    return np.unique(np.concatenate(parts))


def _check(index: int, subset: str, source: Source) -> None:
    if not 0 <= index < len(source):
        raise DiffjaxError(
            f"The subset {subset!r} holds the index {index}, but {source.name} "
            f"{source.split} has the {len(source)} examples 0 to {len(source) - 1}."
        )


def _read_indices(path: Path) -> Int64[np.ndarray, " n"]:
    array = read_npy(path, "file")
    if not (array.ndim == 1 and np.issubdtype(array.dtype, np.integer)):
        raise DiffjaxError(
            f"{path} holds {array.dtype} of shape {array.shape}; a subset is one row "
            "of integers."
        )
    return array.astype(np.int64)
