"""A table that a narrow terminal can hold, with the column that names its rows whole.

What does not fit gives way in this order: bars shrink and go; names go on in a second
line, between their parts; columns go, the least important first, and a line says which.
Where nobody knows how wide the reader's window is, as in a file, nothing gives way.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.bar import Bar
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from diffjax.report.charts import parts

BARS = (12, 8, 4, 0)  # widths of a bar; none at last
COMFORTABLE = 24  # characters of a name's line, where they are to be had
FAR = 10_000

Cell = str | Text | Bar


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        title: above it; lines of it are kept.
        goes: 0 if it stays, else how early it goes: the highest number is the first.
        justify: to which side its cells are.
        style: of its cells.
        bar: whether its cells are bars, which have no width of their own.
        wraps: whether its words may go to further lines.
        least: characters that it needs at least.
    """

    title: str = ""
    goes: int = 0
    justify: Literal["left", "right"] = "right"
    style: str = ""
    bar: bool = False
    wraps: bool = False
    least: int | None = None


@dataclass(frozen=True, kw_only=True)
class FittingTable:
    """A table as wide as there is room for; to be printed by rich.

    Attributes:
        key: the place of the column that names the rows, which never goes.
        columns: with the key.
        title: above the table.
        header: whether titles of columns are shown.
        blocks: columns that do not fit come in a further block, below, with the names
            again, instead of going.
        rows: cells, and the style of their row; see ``add_row``.
    """

    columns: Sequence[Column]
    key: int = 0
    title: str | None = None
    header: bool = True
    blocks: bool = False
    rows: list[tuple[Sequence[Cell], str]] = field(default_factory=list)

    def add_row(self, *cells: Cell, style: str = "") -> None:
        """Add a row: a cell for each column. A ``str`` is text, not markup."""
        texts = [Text(cell) if isinstance(cell, str) else cell for cell in cells]
        self.rows.append((texts, style))

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[Table | Text]:
        """Draw the table in the room that there is."""
        if self.title is not None:
            yield Text(self.title, style="italic")
        room = options.max_width
        if self.blocks:
            yield from self._in_blocks(console, room)
            return
        shown, table = self._fitting(console, room)
        yield table
        gone = [c.title for i, c in enumerate(self.columns) if i not in shown]
        if named := [title.replace("\n", " ") for title in gone if title]:
            yield Text(f"not shown here, too narrow: {', '.join(named)}", style="dim")

    def __rich_measure__(
        self, console: Console, options: ConsoleOptions
    ) -> Measurement:
        """Measure from what has to stay to all columns."""
        most = _width(console, self._table(range(len(self.columns)), BARS[0], FAR))
        if not console.is_terminal and "COLUMNS" not in os.environ:
            return Measurement(most, most)
        if self.blocks:
            pairs = ([self.key, i] for i in self._others())
            widths = [_width(console, self._narrow(pair)) for pair in pairs]
            return Measurement(max(widths, default=0), most)
        stay = [i for i, c in enumerate(self.columns) if i == self.key or not c.goes]
        return Measurement(_width(console, self._narrow(stay)), most)

    def _fitting(self, console: Console, room: int) -> tuple[list[int], Table]:
        """The first way that fits, or the narrowest; and its columns."""
        for shown, bar, name in self._ways():
            table = self._table(shown, bar, name)
            if _width(console, table) <= room:
                break
        else:
            return shown, self._narrow(shown, room)
        for wider in (FAR, COMFORTABLE):  # with what columns left behind
            roomy = self._table(shown, bar, max(wider, self._longest_part()))
            if _width(console, roomy) <= room:
                return shown, roomy
        return shown, table

    def _ways(self) -> Iterator[tuple[list[int], int, int]]:
        """Columns, width of a bar, and width of a name: less and less."""
        shown = list(range(len(self.columns)))
        for bar in BARS:
            yield shown, bar, FAR
        short = max(COMFORTABLE, self._longest_part())
        yield shown, 0, short
        going = sorted((c.goes, i) for i, c in enumerate(self.columns) if c.goes)
        for _, i in reversed(going):
            shown = [each for each in shown if each != i]
            yield shown, 0, short
        yield shown, 0, self._longest_part()

    def _in_blocks(self, console: Console, room: int) -> Iterator[Table | Text]:
        left = self._others()
        while left:
            if len(left) < len(self._others()):
                yield Text()
            n = 1
            while n < len(left) and _width(console, self._block(left[: n + 1])) <= room:
                n += 1
            yield self._block(left[:n])
            left = left[n:]

    def _block(self, others: Sequence[int]) -> Table:
        name = max(COMFORTABLE, self._longest_part())
        return self._table([self.key, *others], BARS[0], name)

    def _others(self) -> list[int]:
        return [i for i in range(len(self.columns)) if i != self.key]

    def _narrow(self, shown: Iterable[int], room: int | None = None) -> Table:
        """Names as narrow as their longest part, or as what the others leave."""
        name = self._longest_part()
        return self._table(shown, 0, name if room is None else min(name, room))

    def _table(self, shown: Iterable[int], bar: int, name: int) -> Table:
        """These columns, with bars and names of some width."""
        table = Table(
            box=None, header_style="dim", pad_edge=False, show_header=self.header
        )
        kept = []
        for i in shown:
            column = self.columns[i]
            if column.bar and not bar:
                continue
            kept.append(i)
            is_key = i == self.key
            table.add_column(
                Text(column.title),
                justify="left" if is_key or column.bar else column.justify,
                style=column.style,
                width=bar if column.bar else None,
                min_width=column.least,
                no_wrap=not (column.wraps or is_key),
                overflow="fold",
            )
        for cells, style in self.rows:
            texts = [
                _wrapped(cells[i], name) if i == self.key else cells[i] for i in kept
            ]
            table.add_row(*texts, style=style)
        for i, drawn in zip(kept, table.columns, strict=True):
            if not self.columns[i].wraps and not self.columns[i].bar:
                drawn.min_width = max(map(_longest, (drawn.header, *drawn.cells)))
        return table

    def _longest_part(self) -> int:
        words = " ".join(str(cells[self.key]) for cells, _ in self.rows).split()
        return max(
            (cell_len(each) for word in words for each in parts(word)), default=1
        )


def _width(console: Console, table: Table) -> int:
    options = console.options.update(width=FAR)
    return Measurement.get(console, options, table).minimum


def _wrapped(cell: Cell, width: int) -> Text:
    """A name in lines of at most some width, cut between its parts alone."""
    assert isinstance(cell, Text)
    lines = []
    for line in cell.plain.split("\n"):
        lines.append("")
        for place, word in enumerate(line.split(" ")):
            for number, part in enumerate(parts(word)):
                space = " " if place and not number else ""
                if lines[-1] and cell_len(lines[-1] + space + part) > width:
                    lines.append(part)
                else:
                    lines[-1] += space + part
    return Text("\n".join(lines), style=cell.style)


def _longest(cell: object) -> int:
    return max(map(cell_len, str(cell).split("\n")))
