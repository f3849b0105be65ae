"""Files that are read again: they must be what they were."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from diffjax.errors import DiffjaxError

Content = TypeVar("Content")


def if_unchanged(
    read: Callable[[], Content], places: Iterable[Path]
) -> Callable[[], Content]:
    """``read``, which refuses once files have changed since now.

    Args:
        read: reads them.
        places: the files, and folders of them.

    Returns:
        The same function but for a DiffjaxError when a file is not what it was, by
        its size and time, or is gone, or there is another beside it.
    """
    places = tuple(places)
    before = {place: state_of(place) for place in places}

    def checked() -> Content:
        for place, state in before.items():
            if state_of(place) != state:
                raise DiffjaxError(
                    f"{place} has changed since the model was loaded from it; "
                    "load the model again."
                )
        return read()

    return checked


def state_of(place: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the files of a place, as far as they are there."""
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
