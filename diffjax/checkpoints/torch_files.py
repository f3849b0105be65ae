"""What torch saved: tensors and plain values, read without running any of it.

torch's ``weights_only`` builds nothing but tensors, numbers, text and containers. Some
files hold numpy numbers besides. Those name two functions of numpy's, which are not let
in either: small stand-ins of our own take their place, that know integers alone. A
training checkpoint's command line, an argparse.Namespace, has a stand-in too, and so
has the class by which PyTorch Lightning names the state of what saved it.
"""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.errors import DiffjaxError, optional

_CHUNK = 2**24  # bytes
INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def load_torch(path: Path, *, instead: str) -> Any:
    """The content of a file that ``torch.save`` wrote; tensors are on the CPU.

    Args:
        path: the file.
        instead: a sentence for errors: what else can be done.

    Raises:
        DiffjaxError: if torch is not installed, or the file is damaged or holds
            something else.
    """
    # Only the name of the error with which torch refuses; nothing is unpickled.
    from pickle import UnpicklingError

    torch = optional("torch", f"Reading {path}", instead)
    try:
        archive = zipfile.is_zipfile(path)  # files before torch 1.6 are none
    except (zipfile.BadZipFile, OSError) as error:  # of some kinds of damage
        raise damaged(path, error, instead) from error
    if not archive or not _checked(path, instead):
        warnings.warn(
            f"Files in {path.parent} have no checksums ({path.suffix}, of an old torch "
            "or without them), so that damage to their numbers cannot be seen. Compare "
            "them with the published files' digests.",
            stacklevel=2,
        )
    try:
        with torch.serialization.safe_globals(
            [
                (_integer, "numpy._core.multiarray.scalar"),
                (_integer, "numpy.core.multiarray.scalar"),  # before numpy 2
                (_IntegerType, "numpy.dtype"),
                (_Options, "argparse.Namespace"),
                (
                    _Saver,
                    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
                ),
            ]
        ):
            return torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                mmap=archive,
            )
    except UnpicklingError as error:
        raise DiffjaxError(
            f"{path} was refused: it is damaged, or holds something other than "
            f"tensors, which could run code. Nothing in it was run. {instead}"
        ) from error
    except Exception as error:  # on damage torch raises nearly anything
        raise damaged(path, error, instead) from error


def damaged(
    path: Path, error: Exception, remedy: str = "Download it again."
) -> DiffjaxError:
    """Return the error for a file of weights that cannot be read."""
    return DiffjaxError(f"{path} is damaged or incomplete ({error}). {remedy}")


def state_dict(content: Any, path: Path) -> dict[str, Any]:
    """The table of tensors in what ``torch.save`` wrote.

    Of a training checkpoint that is the table under "ema", averaged weights, or else
    under "model" or "state_dict"; which one is told by a warning.

    Raises:
        DiffjaxError: if there is none, or more than tensors in it.
    """
    for key in ("ema", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            averaged = " (averaged weights)" if key == "ema" else ""
            others = ", ".join(str(other) for other in content if other != key)
            warnings.warn(
                f"{path} is a training checkpoint: {key}{averaged} is taken of it, and "
                f"not {others or 'anything else'}.",
                stacklevel=2,
            )
            content = content[key]
            break
    import torch

    if not isinstance(content, dict) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise DiffjaxError(
            f"{path} is not a flat table of tensors. Save the model's state_dict() "
            "alone."
        )
    return {str(key): value for key, value in content.items()}


def _checked(path: Path, instead: str) -> bool:
    """Compare an archive's checksums, which torch does not; False if it has none.

    Raises:
        DiffjaxError: if one does not fit, or the archive is not as torch writes it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("it is compressed, as torch saves nothing")
            # torch.serialization.set_crc32_options(False) writes zeros
            if members and not any(member.CRC for member in members):
                return False
            for member in members:
                with archive.open(member) as file:
                    while file.read(_CHUNK):
                        pass
    except Exception as error:  # on damage zipfile raises nearly anything
        raise damaged(path, error, instead) from error
    return True


class _Options:
    """Stands in for argparse.Namespace: an object that attributes are set on."""


class _Saver:
    """Stands in for a class that is a key of a table, as in Stable Diffusion 1.4."""


class _IntegerType:
    """Stands in for numpy.dtype."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in INTEGERS:
            raise ValueError(f"a number of type {name!r}")
        self.name = name
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _integer(kind: _IntegerType, data: bytes) -> int:
    """Stands in for numpy's constructor of a number from its bytes."""
    return int(np.frombuffer(data, kind.order + kind.name)[0])
