"""The table of models by data sets as a file: CSV, or LaTeX for a paper."""

import re
from typing import Any

from diffjax.report.charts import printable
from diffjax.report.crosstable import Cell, CrossTable
from diffjax.report.words import cross_notes
from diffjax.runs.spreadsheets import csv_text

SPECIAL = {  # of LaTeX, and what prints them in any font
    **{each: f"\\{each}" for each in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"},
    **{"^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"},
    **{"|": r"\textbar{}", "\N{NO-BREAK SPACE}": "~", "\N{REPLACEMENT CHARACTER}": "?"},
    **{"–": "--", "—": "---", "−": "$-$", "±": r"$\pm$"},
}
MISSING = "--"


def cross_csv(table: CrossTable) -> str:
    """A line a model; of each data set accuracy, interval, images, and whether best.

    Accuracies are proportions in [0, 1]; where there is no run, cells are empty.
    """
    rows = []
    for name, cells, rank in zip(table.rows, table.cells, table.ranks, strict=True):
        row: dict[str, Any] = {"model": name}
        for column, cell in zip(table.columns, cells, strict=True):
            rate = cell.rate if cell else None
            low_high = (rate.low, rate.high) if rate else (None, None)
            row |= {
                column: rate.value if rate else None,
                f"{column}: low": low_high[0],
                f"{column}: high": low_high[1],
                f"{column}: images": cell.images if cell else None,
                f"{column}: best": cell.best if cell else None,
            }
        rows.append(row | {"mean rank": rank})
    return csv_text(rows)


def cross_latex(table: CrossTable) -> str:
    """A tabular environment for a paper that loads booktabs, and notes in comments."""
    ranked = any(rank is not None for rank in table.ranks)
    header = ["model", *table.columns, *(["mean rank"] if ranked else [])]
    lines = [" & ".join(map(latex, header))]
    for name, cells, rank in zip(table.rows, table.cells, table.ranks, strict=True):
        texts = [latex(name), *map(_cell, cells)]
        texts += ["" if rank is None else f"{rank:.2f}"] if ranked else []
        lines.append(" & ".join(texts))
    notes = ["Needs \\usepackage{booktabs}. Accuracy in %, with 95 % intervals."]
    notes += cross_notes(table)
    return "\n".join(
        [
            *(f"% {printable(note)}" for note in notes),
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            rf"{lines[0]} \\",
            r"\midrule",
            *(rf"{line} \\" for line in lines[1:]),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def latex(text: str) -> str:
    """A text that LaTeX prints as it is."""
    return re.sub(".", lambda found: SPECIAL.get(found[0], found[0]), printable(text))


def _cell(cell: Cell | None) -> str:
    if cell is None or cell.rate is None:
        return MISSING
    value, low, high = (f"{100 * number:.1f}" for number in cell.rate)
    number = rf"\textbf{{{value}}}" if cell.best else value
    return rf"{number} {{\scriptsize ({low}--{high})}}"
