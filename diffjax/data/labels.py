"""Labels → numbers: of a model's classes, or of a data set's that says no more."""

import warnings
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from diffjax.data.prompts import check_labels
from diffjax.errors import DiffjaxError

MAX_CLASSES = 10**5  # a larger label is a slip, not a class
FEW = 0.1  # share of classes that occur, under which a large number is told of


def class_ids(
    labels: Iterable[Any],
    class_names: tuple[str, ...] | None,
    n_classes: int,
    advice: str = "",
    *,
    least: int = 2,
) -> tuple[int, ...]:
    """The class ids that labels name.

    A label is a class's whole name, one of the synonyms that commas separate in it
    (as in "tench, Tinca tinca"), or the id in digits; case does not matter.

    Args:
        labels: all different.
        class_names: of the ids from 0, or None if the checkpoint has no names.
        n_classes: how many ids there are.
        advice: what to say besides of an unknown label.
        least: how many labels there must be, 1 or 2.

    Raises:
        DiffjaxError: if a label is unknown, ambiguous, or means the same as another.
    """
    labels = check_labels(labels, least=least)
    meanings: dict[str, set[int]] = {}
    for i, name in enumerate(class_names or ()):
        for synonym in {name, *name.split(",")}:
            meanings.setdefault(synonym.strip().lower(), set()).add(i)
    ids = []
    for label in labels:
        key = label.strip().lower()
        found = sorted(meanings.get(key, ()))
        # a name wins over a number; no number of classes has ten digits
        if not found and key.isdecimal() and len(key) < 10 and int(key) < n_classes:
            found = [int(key)]
        if len(found) > 1:
            raise DiffjaxError(
                f"The label {label!r} is a name of classes "
                f"{', '.join(map(str, found))}; give the number."
            )
        if not found:
            how = f"a class name or a number below {n_classes}"
            raise DiffjaxError(
                f"The model does not know the class {label!r}; give {how}. "
                f"{advice}".rstrip()
                if class_names
                else f"The checkpoint names no classes; instead of {label!r} give a "
                f"number below {n_classes}."
            )
        ids.append(found[0])
    if len(set(ids)) < len(ids):
        twice = sorted({i for i in ids if ids.count(i) > 1})
        raise DiffjaxError(
            f"Several labels mean class {', '.join(map(str, twice))}; keep one of them."
        )
    return tuple(ids)


def numbered(
    labels: Iterable[tuple[str, Any]], names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], list[int]]:
    """The classes of a data set, and the number of each label.

    Args:
        labels: where each stands, for messages, and the label: a number or a name.
        names: of the classes, in their order. Without them integers, which may be
            written as texts, are the numbers of classes that go by their digits; and
            of names the sorted ones are the classes.

    Raises:
        DiffjaxError: if a label is neither, or is no class, or two names are alike.
    """
    labels = [(where, _plain(where, label)) for where, label in labels]
    if names is not None:
        return _among(labels, tuple(names))
    numbers = [_integer(label) for _, label in labels]
    if any(number is None for number in numbers):
        texts = [str(label) for _, label in labels]
        names = tuple(sorted(set(texts)))
        place = {name: i for i, name in enumerate(names)}
        return names, [place[text] for text in texts]
    found = [number for number in numbers if number is not None]
    for (where, _), number in zip(labels, found, strict=True):
        if not 0 <= number < MAX_CLASSES:
            raise DiffjaxError(
                f"{where}: the label {number} is not a class number from 0 to "
                f"{MAX_CLASSES - 1:,}."
            )
    n, occurring = max(found) + 1, len(set(found))
    if n > 1000 and occurring < FEW * n:
        warnings.warn(
            f"The labels go up to {n - 1:,}, so there are {n:,} classes to choose "
            f"from, and {occurring:,} of them occur. With names as labels only "
            "those would be.",
            stacklevel=3,
        )
    return tuple(map(str, range(n))), found


def _among(
    labels: Iterable[tuple[str, str | int]], names: tuple[str, ...]
) -> tuple[tuple[str, ...], list[int]]:
    """The number of each label among names: its own, or that of its name."""
    names = tuple(check_labels(names))
    place = {name: i for i, name in enumerate(names)}
    numbers = []
    for where, label in labels:
        number = place.get(str(label), _integer(label))
        if number is None or not 0 <= number < len(names):
            raise DiffjaxError(
                f"{where}: the label {label!r} is neither one of the {len(names)} "
                f"class names nor a number from 0 to {len(names) - 1}."
            )
        numbers.append(number)
    return names, numbers


def _plain(where: str, label: Any) -> str | int:
    if not isinstance(label, str | bool):
        try:
            return int(index(label))  # numpy's integers too, and arrays of one
        except TypeError:
            pass
    if not isinstance(label, str) or not label.strip():
        raise DiffjaxError(
            f"{where}: the label must be a class name or number, not {label!r:.80}."
        )
    return label.strip()


def _integer(label: str | int) -> int | None:
    """The label as a number, if it is written as one."""
    if isinstance(label, int):
        return label
    digits = label.removeprefix("-")
    # no class has a number of ten digits, and int() refuses thousands of them
    return int(label) if digits.isdecimal() and len(digits) < 10 else None
