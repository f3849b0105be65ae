import csv
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from click.testing import CliRunner
from saved_runs import write_run

from diffjax.cli.commands import group
from diffjax.report.compare import read_report
from diffjax.report.crosstable import cross_table
from diffjax.report.crosstable_files import cross_csv, cross_latex, latex
from diffjax.report.words import cross_notes
from diffjax.strategies.staged import Staged

N = 60
STAGED = Staged(to_keep=(1,), n_samples=(1,), order="nested")


@pytest.fixture
def wrote(tmp_path):
    """Writes the run of a model that has the first of N images right."""
    paths = []

    def write(model, data, n_right, *, n=N, total=None, **more):
        right = np.arange(n) < n_right
        errors = np.stack([~right, right], axis=1)[:, :, None].astype(np.float32)
        header = {
            "model": {"name": model, "fingerprint": f"{sum(model.encode()):016d}"},
            "data": {
                "name": data,
                "fingerprint": f"{sum(data.encode()):016d}",
                "n": total or n,
            },
        }
        path = tmp_path / str(len(paths))
        labels = np.zeros(n, int)
        write_run(path, errors, labels, save_errors=False, header=header, **more)
        paths.append(path)
        return path

    write.table = lambda: cross_table(read_report(paths).groups)
    write.paths = paths
    return write


def numbers(table):
    return [
        [cell.rate.value * N if cell else None for cell in row] for row in table.cells
    ]


def test_models_by_data_sets(wrote):
    for data, *rights in (("x", 50, 20, 20), ("y", 40, 36, 10), ("z", 30, None, 30)):
        for model, right in zip("abc", rights, strict=True):
            if right is not None:
                wrote(model, data, right)
    table = wrote.table()
    assert table.crosses
    assert table.rows == ("a", "b", "c")
    assert table.columns == ("x, test", "y, test", "z, test")
    assert numbers(table) == [[50, 40, 30], [20, 36, None], [20, 10, 30]]
    # on y the first two are not told apart; z lacks one
    best = [[bool(cell and cell.best) for cell in row] for row in table.cells]
    assert best == [[True, False, False], [False] * 3, [False] * 3]
    assert table.complete == (True, True, False)
    assert table.ranks == (1.0, 2.25, 2.75)  # equals share 2 and 3
    notes = " ".join(cross_notes(table))
    assert "over the 2 of 3 data sets" in notes and "x, test; y, test" in notes


def test_other_images_or_unfinished_runs_are_not_ranked(wrote):
    wrote("a", "x", 50), wrote("b", "x", 20, n=30)
    wrote("a", "y", 50, total=N + 5), wrote("b", "y", 20, total=N + 5)
    table = wrote.table()
    assert table.complete == (False, False) and table.ranks == (None, None)
    notes = " ".join(cross_notes(table))
    assert "There are no mean ranks" in notes
    assert "Not finished: a on y, test, b on y, test." in notes


def test_runs_of_one_model_are_told_apart_by_what_differs(wrote):
    wrote("a", "x", 50), wrote("a", "x", 40, strategy=STAGED), wrote("a", "y", 30)
    assert wrote.table().rows == ("a, exhaustive", "a, staged")
    assert numbers(wrote.table()) == [[50, 30], [40, None]]
    wrote("a", "x", 20)  # the very same again
    assert wrote.table().rows == ("a, 0", "a, 1", "a, 3", "a, 2")
    assert not wrote.table().crosses


def test_one_name_of_two_models_is_two_rows(wrote):
    for data in "xy":
        path = wrote("ab", data, 30)
        other = wrote("ab", data, 20)
        text = (other / "run.json").read_text()
        one = f"{sum(b'ab'):016d}"
        (other / "run.json").write_text(text.replace(one, "f" * 16))
        assert path != other
        for part in (other / "parts").glob("*"):  # it also keeps the header
            part.unlink()
    # rows are gone, so the other model has no result
    table = wrote.table()
    assert table.rows == (f"ab ({one[:6]})", "ab (ffffff)")
    assert [cell.rate for cell in table.cells[1]] == [None, None]
    assert table.ranks == (None, None)


NASTY = (r"50 % & more_of #1 $x$ {a} \b ~c ^d <e> |f| \"g\"" + " – ± −", "=1+1", "ü")


def balanced(text):
    return text.replace(r"\{", "").count("{") == text.replace(r"\}", "").count("}")


def test_latex_escapes_names(wrote):
    for data in NASTY:
        wrote("a_b", data, 50), wrote("c%d", data, 20)
    text = cross_latex(wrote.table())
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body[0] == r"\begin{tabular}{lrrrr}" and body[-1] == r"\end{tabular}"
    rows = [line for line in body if line.endswith(r" \\")]
    assert len(rows) == 3
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == 4
        assert not re.search(r"(?<!\\)[%#_]", row) and balanced(row)
    assert rows[1].startswith(r"a\_b & \textbf{83.3} {\scriptsize (72.0--90.7)}")
    assert latex("a\\b") == r"a\textbackslash{}b" and latex("\n") == "?"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX")
def test_latex_compiles(wrote, tmp_path):
    for data in NASTY:
        wrote("a_b", data, 50), wrote("c%d", data, 20)
    table = cross_latex(wrote.table())
    head = r"\documentclass{article}\usepackage{booktabs}"
    text = f"{head}\n\\begin{{document}}\n{table}\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_csv_has_a_line_a_model(wrote):
    for data in NASTY:
        wrote("a", data, 50), wrote("=b", data, 20)
    lines = list(csv.DictReader(io.StringIO(cross_csv(wrote.table()))))
    assert [line["model"] for line in lines] == ["a", "'=b"]
    first = f"{NASTY[0]}, test"
    assert float(lines[0][first]) == pytest.approx(50 / N)
    assert (
        lines[0][f"{first}: best"] == "True" and lines[1][f"{first}: best"] == "False"
    )
    assert "'=1+1, test" in lines[0]  # a name in the header is no formula either
    assert [float(line["mean rank"]) for line in lines] == [1, 2]


def test_the_command_writes_the_table(wrote, tmp_path):
    for data in ("x", "y"):
        wrote("a", data, 50), wrote("b", data, 20)
    runs = ["report", *map(str, wrote.paths)]
    page = tmp_path / "page.html"
    for name in ("table.tex", "table.csv"):
        path = tmp_path / name
        arguments = [*runs, "--table", str(path), "--html", str(page)]
        result = CliRunner().invoke(group, arguments)
        assert result.exit_code == 0, result.output
        assert "83.3" in path.read_text() or "0.833" in path.read_text()
    assert "Models by data sets" in result.stdout
    assert "Mean ranks are over the 2 of 2" in result.stdout.replace("\n", " ")
    text = page.read_text(encoding="utf-8")
    assert '<h2 id="cross">Models by data sets' in text
    assert text.count('class="n best"') == 2
    refused = CliRunner().invoke(group, [*runs, "--table", str(tmp_path / "t.doc")])
    assert refused.exit_code == 2 and "end in .csv or .tex" in refused.stderr
