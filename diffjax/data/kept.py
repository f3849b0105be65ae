"""Arrays that are kept in a folder for other runs.

    FOLDER/ab/abcdef….npz      a few arrays, with checksums

The name is a digest of all that decides the arrays, so none is ever out of date.
"""

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.data.arrays import read_npz
from diffjax.errors import DiffjaxError
from diffjax.files import atomic


def digest_of(*parts: str | np.ndarray) -> str:
    """A name for what these texts and arrays decide: 32 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part.tobytes())
    return digest.hexdigest()[:32]


class KeptArrays:
    """A folder of arrays; several processes may use it at a time."""

    def __init__(self, folder: Path, what: str) -> None:
        """Make the folder, if it does not exist yet.

        Args:
            folder: The folder.
            what: What is kept in it, for messages.

        Raises:
            DiffjaxError: If it cannot be made.
        """
        self._folder, self._what = folder, what
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiffjaxError(
                f"The folder {folder} for {what} cannot be made "
                f"({error.strerror}). Choose another one."
            ) from error

    def get(self, name: str, like: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
        """What is kept under a name; None if nothing is, or if it is damaged.

        Args:
            name: As of ``digest_of``.
            like: Arrays, or shapes, of the shapes and number types that they must have.
        """
        path = self._path(name)
        if not os.path.exists(path):  # false too where it may not be looked at
            return None
        try:
            found = read_npz(path)
        except DiffjaxError:
            found = {}
        if _form(found) == _form(like) and _finite(found):
            return found
        warnings.warn(f"{path} is damaged; it is computed again.", stacklevel=2)
        return None

    def put(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays under a name, unless a number in them overflowed.

        Raises:
            DiffjaxError: If they cannot be written.
        """
        if not _finite(arrays):
            return
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as partial, partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        except OSError as error:
            raise DiffjaxError(
                f"{path}, of the {self._what} that are kept, cannot be written "
                f"({error.strerror}). See to it, take another folder, or keep none."
            ) from error

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / f"{name}.npz"


def _form(arrays: Mapping[str, Any]) -> dict[str, tuple[Any, np.dtype[Any]]]:
    return {name: (x.shape, np.dtype(x.dtype)) for name, x in arrays.items()}


def _finite(arrays: Mapping[str, np.ndarray]) -> bool:
    numbers = [x for x in arrays.values() if np.issubdtype(x.dtype, np.floating)]
    return all(np.isfinite(each).all() for each in numbers)
