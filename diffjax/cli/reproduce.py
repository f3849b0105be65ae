"""``diffjax reproduce``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffjax.cli.group import group, print_json, start
from diffjax.cli.options import new_file, path, switch
from diffjax.errors import DiffjaxError

if TYPE_CHECKING:
    from rich.console import Console

    from diffjax.cli.columns import FittingTable
    from diffjax.runs.reproduction import Reproduction

NAMES = (
    *("table1", "table2", "table3", "table4"),
    *("fig2", "fig3", "fig4", "fig5", "fig6"),
)
EPILOG = """\b
Examples:
  diffjax reproduce
  diffjax reproduce table1 --runs runs
  diffjax reproduce --runs runs --html paper.html"""
STYLES = {"": "bold", "here": "green", "cost": "dim"}


@group.command(epilog=EPILOG)
@click.argument("name", type=click.Choice(NAMES), required=False, metavar="[NAME]")
@path("--runs", "DIR", "Look below this folder for finished runs of the same.")
@new_file("--html", "Write a page with numbers, commands and runs.")
@switch("--json", "JSON on standard output.", name="as_json")
def reproduce(
    name: str | None, runs: Path | None, html: Path | None, as_json: bool
) -> None:
    """Show the paper's tables and figures, and the commands that measure them here.

    NAME is table1 to table4 or fig2 to fig6; all are listed without one. With the
    paper's numbers stand what a decision takes, and the numbers of runs of the same
    data, model, strategy and loss.
    """
    if html is not None and not html.resolve().parent.is_dir():
        raise DiffjaxError(
            f"Cannot write {html}: there is no folder {html.resolve().parent}."
        )
    console, output = start()
    from dataclasses import asdict

    from diffjax.files import write_text
    from diffjax.runs.matching import Runs, find_runs
    from diffjax.runs.paper_figures import EXHIBITS
    from diffjax.runs.reproduction import reproduce as beside

    there = Runs() if runs is None else find_runs(runs)
    chosen = EXHIBITS.values() if name is None else [EXHIBITS[name]]
    found = [beside(each, there) for each in chosen]
    unread = (*there.unread, *(error for each in found for error in each.unread))
    for error in dict.fromkeys(unread):
        click.echo(f"note: {error}", err=True)
    if as_json:
        print_json([asdict(each) for each in found])
    elif name is None:
        output.print(_list(found, counted=runs is not None))
    else:
        _print(found[0], output, searched=runs is not None)
    if html is not None:
        from diffjax.report.reproductions import page

        write_text(html, page(found, tuple(dict.fromkeys(unread))))
        console.print(f"written to {html}", highlight=False, soft_wrap=True)


def _list(found: "Sequence[Reproduction]", *, counted: bool) -> "FittingTable":
    """What there is, and how many of its numbers have been measured."""
    from diffjax.cli.columns import Column, FittingTable

    table = FittingTable(
        columns=(
            Column(title="name", style="bold"),
            Column(title="what it shows", justify="left", wraps=True),
            Column(title="numbers", goes=1),
            *([Column(title="here")] if counted else []),
        )
    )
    for each in found:
        cells = list(each.cells)
        n = sum(cell.paper is not None for cell in cells)
        here = sum(cell.here is not None for cell in cells)
        shown = [str(here)] if counted else []
        table.add_row(each.exhibit.name, each.exhibit.title, str(n or "—"), *shown)
    return table


def _print(found: "Reproduction", output: "Console", *, searched: bool) -> None:
    """Numbers, commands, runs and notes."""
    from rich.text import Text

    from diffjax.cli.columns import Column, FittingTable
    from diffjax.report.reproductions import (
        MATCHED,
        commands,
        heading,
        notes,
        numbers,
        runs_of,
    )

    output.print(Text(heading(found), style="italic"))
    if found.lines:
        header, rows = numbers(found)
        columns = [Column(title=each) for each in header]
        table = FittingTable(columns=columns, blocks=True)
        for cells, kind in rows:
            table.add_row(*cells, style=STYLES[kind])
        output.print(table)
    for block in commands(found):
        output.print()
        if block.title:
            output.print(Text(block.title, style="bold"))
        for line in block.commands:  # whole, to be copied
            output.print(Text(f"  {line}"), soft_wrap=True)
        for told in block.told:
            output.print(Text(told), soft_wrap=True)
    output.print()
    for run in runs_of(found):
        output.print(Text(run), soft_wrap=True)
    for note in (*notes(found), *([MATCHED] if searched else [])):
        output.print(Text(f"note: {note}", style="dim"))
