"""Which examples of a source are used: by index, by class, by number."""

import os
import re
from collections.abc import Sequence
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
    limit: int | None = None,
    *,
    classes: Sequence[int] | None = None,
) -> Int64[np.ndarray, " n"]:
    """The indices of the examples to use; all of them by default.

    The ways to choose apply one after the other: subset, classes, per_class, limit.

    Args:
        source: what is chosen from.
        subset: a .npy file of indices, or ranges as in "0:100,200:300,7", whose ends
            are not included.
        per_class: this many of each class that occurs, drawn without replacement.
        seed: of that draw. What is drawn of a class does not depend on the others,
            and a larger ``per_class`` adds to what a smaller one draws.
        limit: at most this many, evenly spread: of n chosen ones those at ⌊i·n/limit⌋,
            so that all classes stay in, however the source is sorted.
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
    if limit is not None:
        if limit < 1:
            raise DiffjaxError(f"The limit must be at least 1 image, not {limit}.")
        n = len(chosen)
        if limit < n:
            chosen = chosen[np.arange(limit, dtype=np.int64) * n // limit]
    return chosen


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
