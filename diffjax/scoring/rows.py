"""Classes cut into rows of a few widths: of blocks that hold a row's classes each.

    W    a wide row: an even share of all classes, 8 at most
    2    a pair, for what is left

Where a tile may hold fewer cells a device than that, rows are narrower.
"""

import numpy as np
from jaxtyping import Int

MOST_CLASSES = 8  # a block; wider blocks share little more
PAIR = 2


def most_classes(cells: int, devices: int) -> int:
    """How wide a block may be, where a tile is to hold at most so many cells."""
    return max(1, min(MOST_CLASSES, cells // devices))


def width_for(classes: int, most: int = MOST_CLASSES) -> int:
    """Classes of a wide block, for a run of so many: rows as even as can be."""
    rows = -(-classes // most)
    return max(min(PAIR, most), -(-classes // rows))


def split_classes(n: int, width: int) -> dict[int, Int[np.ndarray, "r w"]]:
    """Positions 0 … n − 1 as rows of ``width``, and pairs for the rest.

    Rows that are not full repeat their last class: at most one cell a sample is wasted.
    """
    full, rest = divmod(n, width)
    if rest >= width - 1 > 0:  # a full row wastes no more than pairs would
        full, rest = full + 1, 0
    positions = np.minimum(np.arange(full * width + rest + rest % PAIR), n - 1)
    wide, pairs = np.split(positions, [full * width])
    rows = {PAIR: pairs.reshape(-1, PAIR)} if rest else {}
    return {width: wide.reshape(-1, width)} | rows if full else rows


def pieces(width: int, most: int) -> int:
    """Into how many narrower rows one of ``width`` is cut, so that all fit ``most``."""
    return -(-width // most)


def narrowed(rows: Int[np.ndarray, "r w"], n: int) -> Int[np.ndarray, "rn v"]:
    """Each row cut into n, the last class repeated where they do not come out even."""
    width = rows.shape[1]
    each = -(-width // n)
    columns = np.minimum(np.arange(n * each), width - 1)
    return rows[:, columns].reshape(-1, each)
