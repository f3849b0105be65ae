"""Files that are whole or not there at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"  # how names of unfinished files end


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes ``path`` when all has gone well.

    The content reaches the disk before the name does, so that not even a power cut
    leaves half a file behind. When anything goes wrong, an older file stays as it was.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere folders cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file, atomically."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")
