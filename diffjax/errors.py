"""The one exception for input that a person can mend."""

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

# Modules that an installation may lack, and what pip installs them by.
OPTIONAL = {
    "array_record": '"diffjax[tfds]"',
    "tensorflow_datasets": '"diffjax[tfds]"',
    "datasets": '"diffjax[hf]"',
    "optax": '"diffjax[train]"',
    "orbax.checkpoint": '"diffjax[train]"',
    "sentencepiece.sentencepiece_model_pb2": '"diffjax[t5]"',
    "torch": '"diffjax[torch]"',
    "gradio": '"diffjax[app]"',
    "ftfy": "ftfy",
    "pandas": "pandas",
    "wandb": "wandb",
    "tensorboardX": "tensorboardX",
}
KEPT = 200  # characters of a word that is too long
_WORD = re.compile(r"\S{400,}")


class DiffjaxError(ValueError):
    """Says what is wrong, with which file or value, and what to do about it.

    The command line prints the message alone and exits with code 2. Messages quote what
    damaged files hold; a word of hundreds of characters is shortened.
    """

    def __init__(self, message: str) -> None:
        """Shorten overlong words of the message."""
        super().__init__(_WORD.sub(lambda word: f"{word[0][:KEPT]}…", message))


class NotFiniteError(DiffjaxError):
    """A network's numbers overflowed on one image; on others they may not."""


def overflowed(what: str) -> NotFiniteError:
    """Return the error for ``what`` is not finite: "The error is nan", for one."""
    return NotFiniteError(
        f"{what}: the network's numbers overflowed. Compute in float32 or bfloat16, "
        "not float16; if float32 overflows too, the checkpoint is damaged."
    )


def optional(module: str, purpose: str, instead: str = "") -> Any:
    """Import one of ``OPTIONAL``, or say how to install it.

    Args:
        module: a key of ``OPTIONAL``.
        purpose: what needs it, as the beginning of a sentence.
        instead: a sentence: what else can be done.

    Raises:
        DiffjaxError: if it, or something that it imports, is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise DiffjaxError(
            f"{purpose} needs {module.partition('.')[0]} ({error}). Install it with: "
            f"pip install {OPTIONAL[module]}" + (f". {instead}" if instead else "")
        ) from error


def not_on_this_system(what: str) -> DiffjaxError:
    """Return the error for ``what`` this system cannot do, as Windows."""
    return DiffjaxError(
        f"{what} is not possible on this system: diffjax runs on Linux and macOS. On "
        "Windows use the Windows Subsystem for Linux (WSL)."
    )


def unknown(what: str, value: object, known: Iterable[object]) -> DiffjaxError:
    """Return the error for a value outside a table, with the table's names."""
    known = list(known)
    return DiffjaxError(
        f"There is no {what} {value!r}; choose one of {', '.join(map(str, known))}."
        f"{nearest(value, known)}"
    )


def nearest(value: object, known: Iterable[object]) -> str:
    """Ask whether a name that is nearly the value was meant; empty if none is."""
    from difflib import get_close_matches  # only when something is wrong

    close = get_close_matches(str(value), [str(each) for each in known], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
