"""What the device did in a run of tiles, and whether it had to wait."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Work:
    """What the device did, and whether it had to wait.

    Attributes:
        tiles: dispatched.
        passes: forward passes in them, those that fill up included.
        late: tiles at whose dispatch the device had nothing left to do.
        unready: images that were asked for before they were read and encoded; the
            first, which all have to wait for, is not counted.
        busy: seconds in which a tile was surely being computed.
        seconds: from the first dispatch to the last result, compilation included.
    """

    tiles: int = 0
    passes: int = 0
    late: int = 0
    unready: int = 0
    busy: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        share = self.busy / self.seconds if self.seconds else 1.0
        return (
            f"{self.tiles:,} tiles; the device computed {100 * share:.1f} % of the "
            f"time, and waited for the host {self.late:,} times and for images "
            f"{self.unready:,} times"
        )
