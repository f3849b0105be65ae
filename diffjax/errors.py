"""The one exception for input that a person can mend."""

from collections.abc import Iterable


class DiffjaxError(ValueError):
    """Says what is wrong, with which file or value, and what to do about it.

    The command line prints the message alone and exits with code 2.
    """


class NotFiniteError(DiffjaxError):
    """A network's numbers overflowed on one image; on others they may not."""


def overflowed(what: str) -> NotFiniteError:
    """Return the error for ``what`` is not finite: "The error is nan", for one."""
    return NotFiniteError(
        f"{what}: the network's numbers overflowed. Compute in float32 or bfloat16, "
        "not float16; if float32 overflows too, the checkpoint is damaged."
    )


def not_on_this_system(what: str) -> DiffjaxError:
    """Return the error for ``what`` this system cannot do, as Windows."""
    return DiffjaxError(
        f"{what} is not possible on this system: diffjax runs on Linux and macOS. On "
        "Windows use the Windows Subsystem for Linux (WSL)."
    )


def unknown(what: str, value: object, known: Iterable[object]) -> DiffjaxError:
    """Return the error for a value outside a table, with the table's names."""
    return DiffjaxError(
        f"There is no {what} {value!r}; choose one of {', '.join(map(str, known))}."
    )
