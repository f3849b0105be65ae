"""Some classes of a data set, by their numbers.

Numbers and half-open ranges (``100:110`` is 100 to 109), separated by spaces, commas or
new lines; ``#`` starts a comment.
"""

import re
from collections.abc import Iterable

from diffjax.errors import DiffjaxError
from diffjax.files import PathLike, read_lines

_ENTRY = re.compile(r"(\d{1,9})(?::(\d{1,9}))?", re.ASCII)


def read_classes(path: PathLike, n_classes: int) -> tuple[int, ...]:
    """Read the class numbers in a file; see ``parse_classes``.

    Raises:
        DiffjaxError: if the file is missing, too.
    """
    lines = enumerate(read_lines(path), start=1)
    named = ((f"{path}, line {number}", line) for number, line in lines)
    return parse_classes(named, str(path), n_classes)


def parse_classes(
    lines: Iterable[tuple[str, str]], name: str, n_classes: int
) -> tuple[int, ...]:
    """Read the class numbers in lines of text.

    Args:
        lines: where each is, for messages, and its text.
        name: what they are of, for messages too.
        n_classes: how many classes the data set has.

    Returns:
        Two or more numbers in [0, n_classes), ascending.

    Raises:
        DiffjaxError: if an entry is not understood, out of range or there twice, or
            fewer than two classes are named.
    """
    classes: set[int] = set()
    for where, line in lines:
        for entry in line.partition("#")[0].replace(",", " ").split():
            named = _entry(entry, n_classes, where)
            if twice := classes & set(named):
                raise DiffjaxError(f"{where}: class {min(twice)} is there already.")
            classes.update(named)
    if len(classes) < 2:
        raise DiffjaxError(
            f"{name} names {len(classes)} class(es). A classification compares "
            "classes: name at least two."
        )
    return tuple(sorted(classes))


def _entry(entry: str, n_classes: int, where: str) -> range:
    found = _ENTRY.fullmatch(entry)
    if not found:
        raise DiffjaxError(
            f"{where}: {entry!r} is neither a class number nor a range like 100:110."
        )
    start = int(found[1])
    stop = int(found[2]) if found[2] else start + 1
    if start >= stop:
        raise DiffjaxError(f"{where}: the range {entry} is empty.")
    if stop > n_classes:
        raise DiffjaxError(
            f"{where}: {entry} goes beyond the data set's last class, {n_classes - 1}."
        )
    return range(start, stop)
