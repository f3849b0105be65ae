"""A report as one HTML page: no script, nothing from elsewhere, numbers for each chart.

The sentences stand in the templates of ``assets/report``, whose output is escaped.
"""

import base64
import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from diffjax import __version__
from diffjax.report import charts, tables, words
from diffjax.report.compare import Report
from diffjax.report.crosstable import cross_table
from diffjax.runs.metrics import ECE_KIND

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parents[1] / "assets" / "report"
STYLE = TEMPLATES / "style.css"
LONGEST = 160  # characters of a name, unless a template says otherwise


def page(report: Report) -> str:
    """The whole page."""
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            cross=cross_table(report.groups),
            style=Markup(STYLE.read_text(encoding="utf-8")),
            version=__version__,
            ids=map("part-{}".format, count(1)),
        )
    )


def environment() -> Environment:
    """What templates may use: charts, tables, and how numbers and names are written."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: charts.printable(value) if type(value) is str else value,
    )
    made.globals.update(charts=charts, tables=tables, words=words, next=next)
    made.globals.update(ece_kind=ECE_KIND)
    made.tests.update(best=lambda cell: isinstance(cell, tables.Best))
    made.filters.update(
        columns_of_numbers=columns_of_numbers,
        image=image,
        jpeg=lambda content: _data("jpeg", content),
        number=tables.number,
        parts=charts.parts,
        percent=tables.percent,
        rate=tables.rate_text,
        score=tables.score_text,
        short=lambda text, width=LONGEST: charts.short(str(text), width),
    )
    return made


def columns_of_numbers(
    rows: Sequence[Sequence[str]], header: Sequence[str]
) -> list[bool]:
    """Whether all cells of each column begin as a number, or as the lack of one."""
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    return [all(re.match(r"[-+−<≈—\d]", cell) for cell in each) for each in columns]


class Image(NamedTuple):
    """A picture within the page, with its size in pixels of a page."""

    source: str
    width: int
    height: int


def image(figure: "Figure") -> Image:
    """A chart as an SVG image."""
    width, height = (round(96 * float(inches)) for inches in figure.get_size_inches())
    return Image(_data("svg+xml", charts.svg(figure).encode()), width, height)


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
