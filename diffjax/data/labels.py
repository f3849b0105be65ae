"""Labels of a class-conditional model: names → class ids."""

from collections.abc import Iterable
from typing import Any

from diffjax.data.prompts import check_labels
from diffjax.errors import DiffjaxError


def class_ids(
    labels: Iterable[Any], class_names: tuple[str, ...] | None, n_classes: int
) -> tuple[int, ...]:
    """The class ids that labels name.

    A label is a class's whole name, one of the synonyms that commas separate in it
    (as in "tench, Tinca tinca"), or the id in digits; case does not matter.

    Args:
        labels: two or more, all different.
        class_names: of the ids from 0, or None if the checkpoint has no names.
        n_classes: how many ids there are.

    Raises:
        DiffjaxError: if a label is unknown, ambiguous, or means the same as another.
    """
    labels = check_labels(labels)
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
                f"The model does not know the class {label!r}; give {how}."
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
