"""The one exception for input that a person can mend."""

from collections.abc import Iterable


class DiffjaxError(ValueError):
    """Says what is wrong, with which file or value, and what to do about it.

    The command line prints the message alone and exits with code 2.
    """


class NotFiniteError(DiffjaxError):
    """A network's numbers overflowed on one image; on others they may not."""


def unknown(what: str, value: object, known: Iterable[object]) -> DiffjaxError:
    """Return the error for a value outside a table, with the table's names."""
    return DiffjaxError(
        f"There is no {what} {value!r}; choose one of {', '.join(map(str, known))}."
    )
