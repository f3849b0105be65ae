"""``diffjax report``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffjax.cli import completion
from diffjax.cli.group import fail_if_partial, group, partial_option, print_json, start
from diffjax.cli.options import new_file, switch
from diffjax.errors import DiffjaxError

if TYPE_CHECKING:
    from rich.console import Console

    from diffjax.cli.columns import FittingTable
    from diffjax.report.compare import Group, Report
    from diffjax.report.crosstable import CrossTable

EPILOG = """\b
Examples:
  diffjax report runs/pets
  diffjax report runs/* --html report.html --csv report.csv"""

TABLES = (".csv", ".tex")


@group.command(epilog=EPILOG)
@click.argument(
    "runs", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.runs
)
@new_file("--html", "Write a page with charts, confusions, calibration and mistakes.")
@new_file("--csv", "Write the comparison, a line a run.", name="csv_file")
@new_file(
    "--table",
    "Write the table of models by data sets; the name's ending, .csv or .tex, says "
    "how.",
    name="table_file",
)
@switch("--json", "JSON on standard output.", name="as_json")
@partial_option
def report(
    runs: tuple[str, ...],
    html: Path | None,
    csv_file: Path | None,
    table_file: Path | None,
    as_json: bool,
    allow_partial: bool,
) -> None:
    """Compare runs, complete or not.

    RUN is a folder that `diffjax evaluate`, `baseline` or `winoground` wrote. Runs
    about the same data are compared with the first of them, image by image; those about
    images made worse also with those about the images as they are, as `diffjax
    robustness` does; and models that have runs on several data sets in a table of
    models by data sets. The page needs nothing but its one file.
    """
    console, output = start()
    for path in filter(None, (html, csv_file, table_file)):
        if not path.resolve().parent.is_dir():
            raise DiffjaxError(
                f"Cannot write {path}: there is no folder {path.resolve().parent}."
            )
    if table_file is not None and table_file.suffix.lower() not in TABLES:
        raise DiffjaxError(
            f"{table_file}: a table's name must end in {' or '.join(TABLES)}."
        )

    from diffjax.files import write_text
    from diffjax.report.compare import read_report
    from diffjax.runs.spreadsheets import csv_text

    found = read_report(runs, errors=html is not None)
    if as_json:
        print_json(found.rows)
    else:
        _print(found, output)
    if csv_file is not None:
        write_text(csv_file, csv_text(found.rows))
    if table_file is not None:
        if not found.groups:
            raise DiffjaxError(
                "The table of models by data sets is of classifications; there is none "
                "among these runs."
            )
        from diffjax.report.crosstable import cross_table
        from diffjax.report.crosstable_files import cross_csv, cross_latex

        write = cross_csv if table_file.suffix.lower() == ".csv" else cross_latex
        write_text(table_file, write(cross_table(found.groups)))
    if html is not None:
        from diffjax.report.page import page

        write_text(html, page(found))
    for path in filter(None, (html, csv_file, table_file)):
        console.print(
            f"written to {path}", highlight=False, markup=False, soft_wrap=True
        )
    fail_if_partial(found.shortfalls, allow_partial)


def _print(report: "Report", output: "Console") -> None:
    """Tables, and below each what it says."""
    from rich.text import Text

    from diffjax.cli.tables import robustness_table, winoground_table
    from diffjax.report.crosstable import cross_table
    from diffjax.report.words import (
        caption_headline,
        cross_notes,
        headline,
        shift_headline,
    )

    def say(text: str, notes: Sequence[str] = ()) -> None:
        if text:
            output.print(Text(text))
        for note in notes:
            output.print(Text(f"note: {note}", style="dim"))
        output.print()

    cross = cross_table(report.groups)
    if cross.crosses:
        output.print(_cross(cross))
        say("", cross_notes(cross, mark="*"))
    for shifts in report.shifts:
        output.print(Text(f"{shifts.title}, as it is and made worse", style="italic"))
        if shifts.points:
            output.print(robustness_table(shifts.points))
        say(shift_headline(shifts))
    for captions in report.captions:
        for run in captions.runs:
            loss = run.row["loss"]
            what = f"{run.row['model']}, by {loss}" if loss else str(run.row["model"])
            output.print(Text(f"{captions.title}: {run.name} ({what})", style="italic"))
            output.print(winoground_table(run.summary))
        say(caption_headline(captions), captions.notes)
    for each in report.groups:
        output.print(_table(each))
        say(headline(each), each.notes)


def _cross(cross: "CrossTable") -> "FittingTable":
    """Models by data sets: accuracies in %, intervals below."""
    from rich.text import Text

    from diffjax.cli.columns import Column, FittingTable
    from diffjax.cli.tables import NOTHING, stacked

    titles = [name.replace(", ", "\n") for name in cross.columns]
    table = FittingTable(
        columns=[Column(title=title) for title in ("model", *titles, "mean\nrank")],
        title="Models by data sets: accuracy in %, with 95 % intervals",
        blocks=True,
    )
    for name, cells, rank in zip(cross.rows, cross.cells, cross.ranks, strict=True):
        texts = []
        for cell in cells:
            text = stacked(*cell.rate) if cell and cell.rate else NOTHING
            best = cell is not None and cell.best
            marked = text.replace("\n", "*\n", 1) if best else text
            texts.append(Text(marked, style="bold" if best else ""))
        table.add_row(name, *texts, NOTHING if rank is None else f"{rank:.2f}")
    return table


def _table(group: "Group") -> "FittingTable":
    """Runs about the same data: accuracies in %, intervals below, and cost."""
    from diffjax.cli.columns import Column, FittingTable
    from diffjax.cli.tables import NOTHING, stacked

    losses = {run.row["loss"] for run in group.runs} - {None}
    by = f" by {losses.pop()}" if len(losses) == 1 else ""
    several = len(group.runs) > 1
    table = FittingTable(
        columns=(
            Column(title="run"),
            Column(title="top-1"),
            *([Column(title="vs first", goes=1)] if several else []),
            Column(title="top-5", goes=4),
            Column(title="per\nclass", goes=5),
            Column(title="evals", goes=3),
            Column(title="s/image", goes=6),
            Column(title="images", goes=2),
        ),
        title=f"{group.title}: accuracy in %{by}, with 95 % intervals",
    )
    for run in group.runs:
        row = run.row
        cells = [stacked(*run.accuracy) if run.accuracy else NOTHING]
        if several:
            rate = run.rate("difference")
            cells.append(stacked(*rate, signed=True) if rate else NOTHING)
        for metric in ("acc5", "mean_per_class_recall"):
            rate = run.rate(metric)
            cells.append(NOTHING if rate is None else f"{100 * rate.value:.1f}")
        for cost, form in (("evaluations", ",.0f"), ("seconds", ",.3g")):
            value = row[f"{cost}_per_image"]
            cells.append(NOTHING if value is None else format(value, form))
        done = f"{row['images']:,}"
        if row["failed_images"]:
            done += f"\n{row['failed_images']:,} failed"
        if row["status"] != "complete":
            done += f"\nof {row['images_selected']:,}"
        name = f"{run.name}\nby {row['loss']}" if losses and row["loss"] else run.name
        table.add_row(name, *cells, done)
    return table
