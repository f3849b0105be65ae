"""numpy's files, npy and npz: read whole, checked against their sizes and checksums.

numpy's own reader believes a header's shape before it looks at the size of the file,
decompresses whatever an archive holds, and leaves checksums unread.
"""

import io
import math
import zipfile
import zlib
from typing import Any, cast

import numpy as np

from diffjax.errors import DiffjaxError
from diffjax.files import PathLike, regular_file

MAX_ARRAY_BYTES = 2**32  # 65,536 noises of 64 × 64 × 4
_CHUNK = 2**24


def read_npy(path: PathLike, what: str = "npy file") -> np.ndarray:
    """The array of a .npy file.

    Args:
        path: the path of the file.
        what: the kind of file, for messages.

    Raises:
        DiffjaxError: if it is missing, damaged, cut, too large, or holds objects.
    """
    place = regular_file(path, what)
    try:
        with place.open("rb") as file:
            if file.read(2) == b"PK":
                raise _damaged(place, "an archive (npz), not one array")
            file.seek(0)
            return _read_array(file, place.stat().st_size, str(place))
    except OSError as error:
        raise _damaged(place, str(error.strerror or error)) from error


def read_npz(path: PathLike, what: str = "npz file") -> dict[str, np.ndarray]:
    """The arrays of a .npz file by their names.

    Raises:
        DiffjaxError: as ``read_npy``, and if a checksum of the archive does not fit.
    """
    place = regular_file(path, what)
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(place) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > MAX_ARRAY_BYTES:
                raise _too_large(str(place), total)
            for member in members:
                with archive.open(member) as file:
                    where = f"{place}, {member.filename}"
                    stream = cast(io.BufferedIOBase, file)
                    array = _read_array(stream, member.file_size, where)
                    if file.read(1):  # to the end, where the checksum is looked at
                        raise _damaged(where, "it has data after the array")
                arrays[member.filename.removesuffix(".npy")] = array
    except DiffjaxError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        NotImplementedError,  # another compression, a later version
        RuntimeError,  # a password
        ValueError,
        LookupError,
    ) as error:
        raise _damaged(place, str(error)) from error
    return arrays


def _read_array(file: io.BufferedIOBase, size: int, where: str) -> np.ndarray:
    """The array in a stream of so many bytes."""
    shape, fortran, dtype = _read_header(file, where)
    if dtype.hasobject:
        raise DiffjaxError(
            f"{where} holds Python objects, which could run code and are not read. "
            "Save numbers."
        )
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes > MAX_ARRAY_BYTES:
        raise _too_large(where, n_bytes)
    here = file.tell()
    if n_bytes > size - here:
        raise _damaged(
            where,
            f"{dtype} of shape {shape} are {n_bytes:,} bytes, and it has "
            f"{max(size - here, 0):,}: it is cut, or the header is damaged",
        )
    buffer = np.empty(n_bytes, np.uint8)
    view = memoryview(buffer.data)
    done = 0
    while done < n_bytes:
        read = file.read(min(_CHUNK, n_bytes - done))
        if not read:
            raise _damaged(where, "it is cut")
        view[done : done + len(read)] = read
        done += len(read)
    array = buffer.view(dtype) if dtype.itemsize else np.empty(math.prod(shape), dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _read_header(
    file: io.BufferedIOBase, where: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, whether Fortran's order, and the dtype."""
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file)
    except Exception as error:  # headers are Python texts: anything may be wrong
        kind = str(error).split("\n")[0] if str(error) else type(error).__name__
        raise _damaged(where, f"its header: {kind:.200}") from error
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise _damaged(where, f"its header: the shape is {shape}")
    return shape, fortran, dtype


def _too_large(where: str, n_bytes: int) -> DiffjaxError:
    return DiffjaxError(
        f"{where} would take {n_bytes / 2**30:,.1f} GiB of memory; "
        f"{MAX_ARRAY_BYTES >> 30} GiB are read at most. Check it, or split it."
    )


def _damaged(where: object, why: str) -> DiffjaxError:
    return DiffjaxError(
        f"{where} cannot be read ({why:.300}). Save it again with numpy, or fetch it "
        "again."
    )
