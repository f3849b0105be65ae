"""Pieces of a page: everything that is not ours is escaped here.

Functions take plain text and return HTML; what is HTML already is called so.
"""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from itertools import count

from diffjax.report.charts import short

LONGEST = 160  # characters of a name


class Markup:
    """Makes the pieces of one page, whose ids must differ."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def identifier(self) -> str:
        """A new one."""
        return f"part-{next(self._numbers)}"

    def table(
        self, caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]
    ) -> str:
        """A table whose rows begin with their names; it scrolls in a box of its own.

        A column is set as numbers if all its cells begin as one.
        """
        rows = list(rows)
        columns = list(zip(*rows, strict=True)) or [()] * len(header)
        # an em dash stands where there is no number
        numbers = [all(re.match(r"[-+−≈—\d]", cell) for cell in c) for c in columns]
        kinds = [' class="n"' if number else "" for number in numbers]
        name = self.identifier()
        head = "".join(
            f'<th scope="col"{kind}>{text(title)}</th>'
            for title, kind in zip(header, kinds, strict=True)
        )
        body = "".join(
            f'<tr><th scope="row"{kinds[0]}>{text(row[0])}</th>'
            + "".join(
                # a strategy is one long word
                f"<td{kind}>{text(cell).replace(':', ':<wbr>')}</td>"
                for cell, kind in zip(row[1:], kinds[1:], strict=True)
            )
            + "</tr>\n"
            for row in rows
        )
        return (
            f'<div class="scroll" role="group" aria-labelledby="{name}" tabindex="0">'
            f'<table><caption id="{name}"><span>{text(caption)}</span></caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
        )

    def section(self, level: int, title: str, content_html: str, name: str = "") -> str:
        """A section with its heading; those of level 2 are landmarks."""
        name = name or self.identifier()
        label = f' aria-labelledby="{name}"' if level == 2 else ""
        return (
            f"<section{label}>\n"
            f'<h{level} id="{name}">{text(title)}</h{level}>\n'
            f"{content_html}</section>\n"
        )


def text(value: str, longest: int = LONGEST) -> str:
    """Any text, as the content of an element or of a quoted attribute."""
    return html.escape(short(value, longest))


def paragraph(words: str) -> str:
    """A paragraph; see ``marked``."""
    return f"<p>{marked(words)}</p>\n"


def marked(words: str) -> str:
    """Plain text in which `backticks` enclose commands."""
    return re.sub(r"`([^`]{1,40})`", r"<code>\1</code>", text(words, 10_000))


def bullets(items: Iterable[str], kind: str) -> str:
    """A list of sentences; nothing without any."""
    lines = "".join(f"<li>{text(item, 1_000)}</li>\n" for item in items)
    return f'<ul class="{kind}">\n{lines}</ul>\n' if lines else ""


def figure(svg: str, finding: str, caption: str, *, wide: bool = False) -> str:
    """A chart as an image within the page.

    Args:
        svg: of the chart.
        finding: what it shows, in words, for those who do not see it.
        caption: how to read it, for everyone.
        wide: keep it large, and let it scroll on narrow screens.
    """
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if size is None:
        raise ValueError("this SVG has no viewBox")
    # a point of the chart is 4/3 of a page's pixels
    width, height = (round(float(length) * 4 / 3) for length in size.groups())
    data = base64.b64encode(svg.encode()).decode()
    image = (
        f'<img src="data:image/svg+xml;base64,{data}" width="{width}" '
        f'height="{height}" alt="{text(finding, 2_000)}">'
    )
    if wide:
        image = (
            '<div class="scroll" role="group" aria-label="Chart, scrolls sideways" '
            'tabindex="0">'
            f"{image}</div>"
        )
    kind = ' class="wide"' if wide else ""
    return (
        f"<figure{kind}>{image}\n<figcaption>{marked(caption)}</figcaption></figure>\n"
    )


def details(summary: str, content_html: str) -> str:
    """Content that opens on demand."""
    return f"<details><summary>{text(summary)}</summary>\n{content_html}</details>\n"


def picture(jpeg: bytes, words: str) -> str:
    """A small photograph within the page."""
    data = base64.b64encode(jpeg).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{text(words)}">'
