"""The paper's tables and figures beside what runs found here, as text and as a page."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

from markupsafe import Markup

from diffjax import __version__
from diffjax.report.page import STYLE, environment
from diffjax.report.shift_plots import published_figure
from diffjax.runs.matching import Found
from diffjax.runs.paper_figures import FIGURE_6
from diffjax.runs.published import given, standings
from diffjax.runs.reproduction import Cell, Cost, Line, Reproduction

NOTHING = "—"
Row = tuple[str, ...]
SMALL = "In small, with the models of the package"
KINDS = {"table": "Table", "fig": "Figure"}
COSTS = (
    "Evaluations, and TFLOP where they are known, are of one image, or example of "
    "Winoground. Behind `diffjax evaluate`, --dry-run says how long it takes here."
)
MATCHED = (
    "Runs are found by their headers: the same data set, split, classes and prompts; "
    "the same model, by its name, with the published sizes of its network; the same "
    "resolution, strategy and loss; images as they are, and all of them done. Models "
    "of the package are shown by whatever strategy and loss."
)


def heading(found: Reproduction) -> str:
    """Which table or figure it is, and what it shows."""
    name = found.exhibit.name.rstrip("0123456789")
    number = found.exhibit.name.removeprefix(name)
    return f"{KINDS[name]} {number}: {found.exhibit.title}"


def numbers(found: Reproduction) -> tuple[Row, list[tuple[Row, str]]]:
    """The heads of the columns, and rows with their kinds: of the paper, here, cost."""
    header = ("", *found.exhibit.columns)
    rows: list[tuple[Row, str]] = []
    for line in found.lines:
        rows.append(((line.row.title, *(paper_text(c.paper) for c in line.cells)), ""))
        rows += _below(line)
    return header, rows


def _below(line: Line) -> list[tuple[Row, str]]:
    """What is known of a row besides the paper's numbers."""
    kinds: tuple[tuple[str, str, Callable[[Cell], str]], ...] = (
        ("here", "here", lambda cell: here_text(cell.here)),
        ("evaluations", "cost", lambda cell: _cost(cell.cost, evaluations_text)),
        ("TFLOP", "cost", lambda cell: _cost(cell.cost, tflop_text)),
    )
    rows = []
    for title, kind, text in kinds:
        texts = [text(cell) for cell in line.cells]
        if any(each != NOTHING for each in texts):
            rows.append(((f"· {title}", *texts), kind))
    return rows


def paper_text(value: float | int | None) -> str:
    """A number of the paper's."""
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}"


def here_text(found: Found | None) -> str:
    """A number that was measured here."""
    return NOTHING if found is None else f"{100 * found.value:.1f}"


def evaluations_text(cost: Cost) -> str:
    """How many there are."""
    return f"{cost.evaluations:,}"


def tflop_text(cost: Cost) -> str:
    """Three digits of them."""
    if cost.tflop is None:
        return NOTHING
    return f"{float(f'{cost.tflop:.3g}'):,.0f}"


def _cost(cost: Cost | None, text: Callable[[Cost], str]) -> str:
    return NOTHING if cost is None else text(cost)


def _own(cell: Cell | None) -> str:
    """What an exhibit's own commands take, and which run is there."""
    texts = []
    if cell is not None and cell.cost is not None:
        tflop = tflop_text(cell.cost)
        known = "" if tflop == NOTHING else f", {tflop} TFLOP"
        texts.append(f"{evaluations_text(cell.cost)} evaluations{known}.")
    if cell is not None and cell.here is not None:
        texts.append(f"The run is there: {run_text(cell.here)}.")
    return " ".join(texts)


def run_text(found: Found) -> str:
    """A run: its folder, number, images and, of another strategy, which."""
    how = "" if found.how is None else f", by {found.how}"
    low, high = (f"{100 * each:.1f}" for each in (found.low, found.high))
    value = here_text(found)
    return f"{found.run}: {value} % ({low} to {high}) of {found.of:,}{how}"


def runs_of(found: Reproduction) -> list[str]:
    """Runs behind the numbers, and those that differ in strategy or loss alone."""
    columns = [title.replace("\n", " ") for title in found.exhibit.columns]
    told = []
    for line in found.lines:
        for title, cell in zip(columns, line.cells, strict=True):
            for each in (*([] if cell.here is None else [cell.here]), *cell.others):
                told.append(f"{line.row.title}, {title}: {run_text(each)}")
    if found.own is not None:
        told += [run_text(each) for each in found.own.others]
    return told


class Block(NamedTuple):
    """Commands that belong together.

    Attributes:
        title: what they measure; "" where the exhibit says it.
        commands: lines for a shell.
        told: what they take, or have found.
    """

    title: str
    commands: tuple[str, ...]
    told: tuple[str, ...] = ()


def commands(found: Reproduction) -> list[Block]:
    """Commands, by what they measure."""
    rows = [line.row for line in found.lines if line.row.commands]
    blocks = [Block(row.title, row.commands) for row in rows]
    exhibit, own = found.exhibit, _own(found.own)
    if exhibit.commands:
        title = "Altogether" if blocks else ""
        blocks.append(Block(title, exhibit.commands, (own,) if own else ()))
    if exhibit.small:
        told = tuple(f"{name}: {run_text(each)}" for name, each in found.small)
        blocks.append(Block(SMALL, exhibit.small, told))
    return blocks


def notes(found: Reproduction) -> list[str]:
    """What a reader should know."""
    told = list(found.exhibit.notes)
    if found.exhibit.read_off:
        told.insert(0, "The numbers are read off the figure.")
    return told + ([COSTS] if any(cell.cost for cell in found.cells) else [])


def page(found: Sequence[Reproduction], unread: Sequence[str] = ()) -> str:
    """All of them as one HTML page."""
    made = environment()
    made.globals.update(
        heading=heading,
        numbers=numbers,
        runs_of=runs_of,
        commands=commands,
        notes=notes,
        figure_6=_figure_6,
    )
    template = made.get_template("reproduction.html.j2")
    return template.render(
        found=found,
        unread=unread,
        matched=MATCHED,
        style=Markup(STYLE.read_text(encoding="utf-8")),
        version=__version__,
        ids=map("part-{}".format, count(1)),
    )


def _figure_6() -> object:
    """The paper's points beside timm's models."""
    points = [
        given(row.title, row.paper[0] / 100, row.paper[1] / 100, "imagenet_a")
        for row in FIGURE_6.rows
        if row.paper[0] is not None and row.paper[1] is not None
    ]
    return published_figure(standings(points))
