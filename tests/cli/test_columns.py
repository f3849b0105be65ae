"""Tables in narrow windows: names stay whole, and what goes is told."""

import io

import numpy as np
import pytest
from click.testing import CliRunner
from report_runs import write_runs
from rich.bar import Bar
from rich.text import Text
from saved_runs import write_run

from diffjax.checkpoints.catalog import MODELS
from diffjax.cli.columns import BARS, Column, FittingTable
from diffjax.cli.commands import group
from diffjax.cli.tables import models_table, summary_table
from diffjax.cli.terminal import Output
from diffjax.runs.metrics import summary

NAME = "fashion_mnist-racing-of-many-samples"


def shown(table, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    file = io.StringIO()
    Output(file=file).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def table(**more):
    columns = (
        Column(title="#", goes=1),
        Column(title="name"),
        Column(title="score"),
        Column(bar=True),
        Column(title="first", goes=3),
        Column(title="second\nword", goes=2),
    )
    made = FittingTable(columns=columns, key=1, **more)
    made.add_row("1", NAME, "0.987", Bar(1.0, 0, 1.0), "a a a a a", "b" * 9)
    made.add_row("2", "cat", "0.013", Bar(1.0, 0, 0.0), "a", "b")
    return made


def bar_of(lines):
    return max(line.count("█") for line in lines)


def test_bars_shrink_first_then_columns_go(monkeypatch):
    full = shown(table(), 200, monkeypatch)
    assert bar_of(full) == BARS[0] and NAME in full[2]
    most = max(map(len, full))
    previous = BARS[0]
    for width in range(most, 20, -1):
        lines = shown(table(), width, monkeypatch)
        assert max(map(len, lines)) <= width
        text = "\n".join(lines)
        bar, gone = bar_of(lines), "not shown here" in text
        assert bar <= previous and not (bar and gone)
        previous = bar
        assert "score" in text and "0.987" in text and "cat" in text
        # the name is whole, or in lines that end between its parts
        written = [line.split("0.987")[0].strip("1 ") for line in lines[1:]]
        parts = NAME.replace("_", "_ ").replace("-", "- ").split()
        assert all(any(part in line for line in written) for part in parts)
        above, _, told = " ".join(text.split()).partition("not shown here, too narrow:")
        left = [each for each in ("first", "second", "#") if each in above]
        assert left == ["first", "second", "#"][3 - len(left) :]  # in this order
        assert ("first" in above) == ("a a a a a" in above)  # whole, or not at all
        assert all((each in told) == (each not in left) for each in ("first", "#"))


def test_nothing_goes_where_nobody_knows_the_width(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    file = io.StringIO()
    Output(file=file).print(table())
    assert "second" in file.getvalue() and bar_of(file.getvalue().splitlines()) == 12
    assert NAME in file.getvalue()


def test_blocks_go_on_below(monkeypatch):
    columns = [Column(title=title) for title in ("model", "one", "two", "three")]
    made = FittingTable(columns=columns, blocks=True)
    made.add_row("sd-2-base", *("1" * 10, "2" * 10, "3" * 10))
    lines = shown(made, 34, monkeypatch)
    assert [line.split() for line in lines] == [
        *(["model", "one", "two"], ["sd-2-base", "1" * 10, "2" * 10], []),
        *(["model", "three"], ["sd-2-base", "3" * 10]),
    ]
    assert len(shown(made, 80, monkeypatch)) == 2


def test_wide_characters_count_twice(monkeypatch):
    made = FittingTable(columns=(Column(title="label"), Column(title="n", goes=1)))
    made.add_row("猫" * 20, "1" * 10)
    assert shown(made, 60, monkeypatch)[1].split() == ["猫" * 20, "1" * 10]
    narrow = shown(made, 45, monkeypatch)
    assert narrow[1] == "猫" * 20 and "too narrow: n" in narrow[2]


def test_cells_are_no_markup(monkeypatch):
    made = FittingTable(columns=(Column(title="[bold]name"), Column(title="n")))
    made.add_row("[red]x[/red]", Text("[b]", style="bold"))
    assert shown(made, 40, monkeypatch)[1].split() == ["[red]x[/red]", "[b]"]


@pytest.mark.parametrize("width", [60, 40])
def test_tables_keep_their_key_column(width, monkeypatch, tmp_path):
    text = "\n".join(shown(models_table([*MODELS.values()]), width, monkeypatch))
    assert all(name in text for name in MODELS)
    errors = np.array([[[0.1], [0.2]]] * 3, np.float32)
    run = write_run(tmp_path / "run", errors, np.array([0, 1, 0]))
    lines = shown(summary_table(summary(run)), width, monkeypatch)
    assert max(map(len, lines)) <= width
    assert any(line.startswith("mean_per_class_recall  50.0%") for line in lines)


@pytest.mark.parametrize("width", [60, 40])
def test_the_report_keeps_runs_and_accuracies(width, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", str(width))
    paths = write_runs(tmp_path)
    result = CliRunner().invoke(
        group, ["report", *map(str, paths.values()), "--allow-partial"]
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    tables = [line for line in lines if not line.startswith("note")]
    assert all(len(line) <= width for line in tables)
    for name in paths:
        assert any(line.split()[:1] == [name] for line in lines)
    assert "not shown here, too narrow" in result.stdout
