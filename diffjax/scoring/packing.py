"""Packs the cells that many images ask for into tiles of a few fixed shapes.

Each image is a search: it asks for cells (classes × samples), is told their errors, and
asks for more, or is done. The requests of all open searches are cut into blocks and
queued; tiles take blocks as they come, of whichever images. So tiles are full although
few classes of an image may be left, and while the host prunes one image, the device
works on the others. The shapes are few:

    classes a block     W, an even share of all classes (at most 8), or 2 for the rest
    blocks a tile       as many as memory holds; of pairs a quarter of that as well

Wide tiles are always full: what does not fill one is cut into pairs, and remainders of
these take the small tile. So there are three programs to compile, and often two: a
TPU's compiler takes minutes over each, and pairs share nearly as much (an evaluation of
Stable Diffusion costs 2 % more in them, one of DiT nothing).

Where a tile may hold fewer cells a device than W, blocks are that narrow; so a tile
never holds more cells than it may, down to one on each device.

Tiles are dispatched ahead of reading their results: the device does not wait for the
host, and ``Work`` says whether it did. When its memory does not hold a tile, tiles
become half as large: first of fewer blocks, then of narrower ones. Processes that share
a tile cannot tell one another when one of them is short of memory, so there it is an
error, and all of them stop.
"""

import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float, Int

from diffjax.errors import DiffjaxError
from diffjax.scoring.grid import Blocks, Tile, joined
from diffjax.scoring.rows import (
    PAIR,
    most_classes,
    narrowed,
    pieces,
    split_classes,
    width_for,
)
from diffjax.scoring.work import Work

TILES_AHEAD = 2  # dispatched before the first is read
MOST_OPEN = 64  # images at a time, which bounds the memory of the host; enough to fill
# tiles with pairs, four samples an image
MOST_OPEN_CLASSES = 160_000  # of all open images; ten thousand fill tiles alone
FEWEST_OPEN = 4


class Cells(NamedTuple):
    """What an image asks for: every one of the classes with every sample.

    Attributes:
        classes: rows of the conditions, [n].
        timesteps: of the samples, [s].
        noises: noise indices of the samples, [s].
    """

    classes: Int[np.ndarray, " n"]
    timesteps: Int[np.ndarray, " s"]
    noises: Int[np.ndarray, " s"]


@runtime_checkable
class Search(Protocol):
    """An image on its way to a decision."""

    key: int  # of the image, in [0, 2³²), for its noise
    z0: np.ndarray  # [h, w, c]
    told: Mapping[str, np.ndarray]  # by the image, of every condition
    seconds: float  # of the device, added to as tiles come back

    def request(self) -> Cells | None:
        """The cells to evaluate next; None when done."""

    def receive(self, errors: Float[np.ndarray, "l n s"]) -> None:
        """Take the errors of the request."""

    def advance(self, cells: int) -> None:
        """So many more cells of the request are done."""


@runtime_checkable
class Evaluator(Protocol):
    """What the packer needs of a grid."""

    @property
    def losses(self) -> tuple[str, ...]:
        """What it gives, in order."""

    @property
    def cells(self) -> int:
        """Of a tile, about."""

    @property
    def devices(self) -> int:
        """A tile's blocks are a multiple of this."""

    @property
    def together(self) -> bool:
        """Whether several processes compute every tile together."""

    def tile(self, classes: int, cells: int | None = None) -> Tile:
        """A tile of at most so many cells, or of the usual number."""

    def errors(self, conditions: Any, blocks: Blocks) -> Any:
        """Errors [l, B, k] of a tile; returns before they are computed."""

    def check(
        self, timesteps: Int[np.ndarray, " s"], noises: Int[np.ndarray, " s"]
    ) -> None:
        """Refuse samples that cannot be drawn, or have no error."""


@dataclass(kw_only=True, eq=False)
class _Job:
    """The cells of one request, cut into blocks: samples × rows of classes.

    Rows of one width make a part; a row's cells that repeat a class are not counted.
    """

    search: Search
    cells: Cells
    parts: list[np.ndarray]  # each [r, w]
    errors: np.ndarray  # [l, n, s]
    missing: int = field(init=False)  # blocks

    def __post_init__(self) -> None:
        self.missing = sum(run.stop for run in self.runs())

    def runs(self) -> "list[_Run]":
        """All blocks."""
        samples = len(self.cells.timesteps)
        return [
            _Run(self, part, 0, len(rows) * samples)
            for part, rows in enumerate(self.parts)
        ]

    def places(self, run: "_Run") -> tuple[np.ndarray, np.ndarray]:
        """Sample and class positions of a run of blocks: [b] and [b, k]."""
        rows = self.parts[run.part]
        sample, row = np.divmod(np.arange(run.start, run.stop), len(rows))
        return sample, rows[row]

    def count(self, run: "_Run") -> int:
        """Cells of a run of blocks, those that fill up a row left out."""
        rows = self.parts[run.part]
        new = np.diff(rows.ravel(), prepend=-1) > 0  # positions rise along the rows
        row = np.arange(run.start, run.stop) % len(rows)
        return int(new.reshape(rows.shape).sum(axis=1)[row].sum())


class _Run(NamedTuple):
    """Blocks start … stop of one part of a job."""

    job: _Job
    part: int
    start: int
    stop: int

    @property
    def width(self) -> int:
        """Classes of each block."""
        return int(self.job.parts[self.part].shape[1])


class Packer:
    """Evaluates searches, many at a time."""

    def __init__(
        self, grid: Evaluator, conditions: Any, classes: int, work: Work | None = None
    ) -> None:
        """Make ready for searches among ``classes`` classes at first.

        What the device does is added to ``work``.
        """
        self._grid = grid
        self._conditions = conditions
        self._cells = max(grid.cells, grid.devices)
        self._width = width_for(classes, most_classes(self._cells, grid.devices))
        self._queues = self._empty_queues()
        self._flying: deque[tuple[Any, list[_Run]]] = deque()
        self._open = 0
        self._most_open = min(
            MOST_OPEN, max(FEWEST_OPEN, MOST_OPEN_CLASSES // max(1, classes))
        )
        self._clock = time.perf_counter()
        self._latest: float | None = None  # moment that ``work`` knows of
        self.work = work or Work()

    def run(self, searches: Iterator[Search]) -> Iterator[Search]:
        """The searches as they get done, in any order."""
        more = True
        while True:
            while len(self._flying) <= TILES_AHEAD:
                runs = self._take(full=True)
                if runs:
                    self._dispatch(runs)
                elif more and self._open < self._most_open:
                    search = next(searches, None)
                    if search is None:
                        more = False
                    elif not self._ask(search):
                        yield search
                elif self._flying:
                    break  # what comes back may bring more blocks
                elif self._queues[self._width] and self._width > PAIR:
                    self._pair_up()
                elif runs := self._take(full=False):
                    self._dispatch(runs)
                else:
                    return
            yield from self._collect()

    def _ask(self, search: Search) -> bool:
        """Queue a search's next request; false if it has none."""
        cells = search.request()
        if cells is None:
            return False
        n, s = len(cells.classes), len(cells.timesteps)
        self._grid.check(cells.timesteps, cells.noises)
        job = _Job(
            search=search,
            cells=cells,
            parts=list(split_classes(n, self._width).values()),
            errors=np.full((len(self._grid.losses), n, s), np.nan, np.float32),
        )
        for run in job.runs():
            self._queues[run.width].append(run)
        self._open += 1
        return True

    def _take(self, *, full: bool) -> list[_Run]:
        """The blocks of the next tile; nothing if it would have to be full and is not.

        The wide blocks go first: their images have the longest way to go.
        """
        for width, queue in self._queues.items():
            room = self._grid.tile(width, self._cells).blocks
            if not queue or (full and sum(r.stop - r.start for r in queue) < room):
                continue
            runs = []
            while queue and room:
                run = queue.popleft()
                middle = min(run.stop, run.start + room)
                runs.append(run._replace(stop=middle))
                if middle < run.stop:
                    queue.appendleft(run._replace(start=middle))
                room -= middle - run.start
            return runs
        return []

    def _dispatch(self, runs: list[_Run]) -> None:
        """Send blocks to the device, filled up to a fixed number of them."""
        width, count = runs[0].width, sum(run.stop - run.start for run in runs)
        blocks = self._grid.tile(width, self._cells).blocks
        small = self._grid.tile(width, self._cells // 4).blocks
        blocks = small if count <= small else blocks
        tile = _gather(runs, blocks)
        if self._latest is None:
            self._latest = time.perf_counter()
        elif not self._account(self._computing()):
            self.work.late += 1
        try:
            errors = self._grid.errors(self._conditions, tile)
        except jax.errors.JaxRuntimeError as error:
            self._shrink(error, runs)
            return
        errors.copy_to_host_async()
        self.work.tiles += 1
        self.work.passes += blocks * width
        self._flying.append((errors, runs))

    def _collect(self) -> Iterator[Search]:
        """Read the oldest tile, and go on with the searches that it completes."""
        computing = self._account(self._computing())
        errors, runs = self._flying.popleft()
        try:
            values = jax.device_get(errors)
        except jax.errors.JaxRuntimeError as error:
            self._shrink(error, runs)
            return
        self._account(computing)
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        total = sum(run.stop - run.start for run in runs)
        offset = 0
        for run in runs:
            job, n = run.job, run.stop - run.start
            sample, positions = job.places(run)
            job.errors[:, positions, sample[:, None]] = values[:, offset : offset + n]
            offset += n
            job.missing -= n
            job.search.seconds += seconds * n / total
            job.search.advance(job.count(run))
            if not job.missing:
                self._open -= 1
                job.search.receive(job.errors)
                if not self._ask(job.search):
                    yield job.search

    def _computing(self) -> bool:
        """Whether the device has something to do."""
        return any(not errors.is_ready() for errors, _ in self._flying)

    def _account(self, computing: bool) -> bool:
        """Count the time since the last call, in which no tile was dispatched."""
        now = time.perf_counter()
        passed = now - (now if self._latest is None else self._latest)
        self.work.seconds += passed
        self.work.busy += passed if computing else 0.0
        self._latest = now
        return computing

    def _shrink(self, error: Exception, runs: list[_Run]) -> None:
        """After running out of memory: try again with tiles of half the size."""
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise error
        if self._cells == self._grid.devices:
            raise DiffjaxError(
                "The device's memory does not hold the model and a single evaluation; "
                "use a smaller dtype or resolution, or a larger device."
            ) from error
        half = max(self._cells // 2, self._grid.devices)
        if self._grid.together:
            raise DiffjaxError(
                f"A device's memory does not hold tiles of {self._cells} evaluations, "
                "and processes that share a mesh need tiles of one size: give all of "
                f"them --cells {half}."
            ) from error
        warnings.warn(
            f"the device's memory does not hold tiles of {self._cells} "
            f"evaluations; going on with {half}.",
            stacklevel=2,
        )
        # what is in flight was dispatched with the same size and may fail as well
        waiting = [*runs, *(run for _, more in self._flying for run in more)]
        waiting += [run for queue in self._queues.values() for run in queue]
        self._flying.clear()
        self._cells = half
        self._narrow(waiting)

    def _narrow(self, waiting: list[_Run]) -> None:
        """Queue runs again, in blocks that are no wider than a tile's cells allow."""
        most = most_classes(self._cells, self._grid.devices)
        self._width = -(-self._width // pieces(self._width, most))
        self._queues = self._empty_queues()
        self._cut(waiting, most)

    def _pair_up(self) -> None:
        """Cut what does not fill a wide tile into pairs; nothing is in flight."""
        waiting = list(self._queues[self._width])
        self._queues[self._width].clear()
        self._cut(waiting, PAIR)

    def _cut(self, waiting: list[_Run], most: int) -> None:
        """Queue runs in blocks of at most so many classes, all of their parts."""
        cuts = {(run.job, run.part): pieces(run.width, most) for run in waiting}
        for (job, part), n in cuts.items():
            job.parts[part] = narrowed(job.parts[part], n)
        for job, part, start, stop in waiting:
            n = cuts[job, part]
            job.missing += (n - 1) * (stop - start)
            run = _Run(job, part, n * start, n * stop)
            self._queues[run.width].append(run)

    def _empty_queues(self) -> dict[int, deque[_Run]]:
        """One for each width of blocks, wide ones first."""
        return {self._width: deque(), min(PAIR, self._width): deque()}


def _gather(runs: list[_Run], blocks: int) -> Blocks:
    """The arrays of a tile."""
    parts = []
    for run in runs:
        search, cells = run.job.search, run.job.cells
        sample, positions = run.job.places(run)
        n = len(sample)
        z0, told = jax.tree.map(
            lambda leaf, n=n: np.broadcast_to(np.asarray(leaf), (n, *leaf.shape)),
            (search.z0, dict(search.told)),
        )
        part = Blocks(
            keys=np.full(n, search.key, np.uint32),
            z0=z0,
            timesteps=cells.timesteps[sample].astype(np.int32),
            noises=cells.noises[sample].astype(np.int32),
            classes=cells.classes[positions].astype(np.int32),
            told=told,
        )
        parts.append(part)
    return joined(parts, blocks)
