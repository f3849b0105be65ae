"""Cells of CSV files that a spreadsheet would take for formulas.

A cell that begins with = + - or @, a tab or a carriage return may be computed when the
file is opened, and names of data sets, models and folders are anybody's. Such a text
gets an apostrophe in front, which spreadsheets take for "this is a text".
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same keys as CSV: these, then a line a row; None is left empty."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writerow(guarded({key: key for key in rows[0]}))  # names of data are too
    writer.writerows(map(guarded, rows))
    return file.getvalue()


def guarded(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose texts are texts; numbers stay."""
    return {
        key: f"'{value}" if isinstance(value, str) and _formula(value) else value
        for key, value in row.items()
    }


def plain(value: str) -> str:
    """The text of a cell that ``guarded`` may have changed."""
    return value[1:] if value.startswith("'") and _formula(value[1:]) else value


def _formula(value: str) -> bool:
    # one more apostrophe, for a text that looks as if it had got one
    return value.lstrip("'").startswith(FORMULAS)
