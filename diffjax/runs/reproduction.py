"""The paper's tables and figures with what they cost, beside what runs found here.

Evaluations are those that a strategy asks for, of an image or an example; TFLOP are
these times what one of them takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from diffjax.runs.exhibits import Exhibit, Measure, Row
from diffjax.runs.matching import (
    Found,
    Runs,
    classes_of,
    found_by,
    of_pairs,
    strategy_of,
)
from diffjax.runs.paper import TFLOP

N_TIMESTEPS = 1000  # of Stable Diffusion and of DiT
OF = {"head": "features of "}
CAPTIONS, IMAGES = 3, 2  # of an example of Winoground, with the empty caption


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a decision takes.

    Attributes:
        evaluations: of an image, or of an example of Winoground.
        tflop: the same in TFLOP; None where that is not known.
    """

    evaluations: int
    tflop: float | None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of the paper's.

    Attributes:
        paper: as its row has it.
        cost: of measuring it; None where that is not known or nothing is evaluated.
        here: what a run has found; None where there is none.
        others: runs by other strategies or losses.
    """

    paper: float | int | None
    cost: Cost | None = None
    here: Found | None = None
    others: tuple[Found, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row, with a cell a column."""

    row: Row
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A table or figure of the paper, and what is here.

    Attributes:
        exhibit: as the paper has it.
        lines: of its rows.
        own: of what its own commands evaluate; None where they evaluate nothing.
        small: what models of the package have found, by what they are of.
        unread: what is wrong with runs that count by their headers, and cannot be read.
    """

    exhibit: Exhibit
    lines: tuple[Line, ...]
    own: Cell | None = None
    small: tuple[tuple[str, Found], ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def cells(self) -> Iterator[Cell]:
        """All of them."""
        for line in self.lines:
            yield from line.cells
        if self.own is not None:
            yield self.own


def reproduce(exhibit: Exhibit, runs: Runs | None = None) -> Reproduction:
    """A table or figure with costs, and with what runs have found."""
    runs, unread = Runs() if runs is None else runs, dict[str, None]()

    def cell(paper: float | int | None, measure: Measure | None) -> Cell:
        if measure is None:
            return Cell(paper=paper)
        found = found_by(measure, runs, unread)
        same = [each for each in found if each.how is None]
        return Cell(
            paper=paper,
            cost=cost(measure),
            here=same[0] if same else None,
            others=tuple(each for each in found if each.how is not None),
        )

    lines = []
    for row in exhibit.rows:
        measures = row.measures or (None,) * len(row.paper)
        pairs = zip(row.paper, measures, strict=True)
        lines.append(Line(row=row, cells=tuple(cell(*pair) for pair in pairs)))
    own = None if exhibit.takes is None else cell(None, exhibit.takes)
    small = [
        (f"{OF.get(measure.kind, '')}{measure.model}, {measure.data}", each)
        for measure in exhibit.counterparts
        for each in found_by(measure, runs, unread, every=True)
    ]
    return Reproduction(
        exhibit=exhibit,
        lines=tuple(lines),
        own=own,
        small=tuple(small),
        unread=tuple(unread),
    )


def cost(measure: Measure) -> Cost | None:
    """What a decision takes; None where an image is seen once, or nobody knows yet."""
    strategy = strategy_of(measure)
    if strategy is None or not measure.counted:
        return None
    n, times = (CAPTIONS, IMAGES) if of_pairs(measure) else (classes_of(measure), 1)
    evaluations = times * strategy.remaining(strategy.start(n, N_TIMESTEPS))
    each = TFLOP.get(measure.model)
    return Cost(
        evaluations=evaluations, tflop=None if each is None else each * evaluations
    )
