"""What is not complete, or damaged, is nowhere shown as if it were a whole run."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from saved_runs import tables, write_run

from diffjax.cli.commands import group
from diffjax.runs.folder import open_run, read_run
from diffjax.runs.spreadsheets import guarded, plain

N, C, T = 40, 3, 8
COMMANDS = {
    "report": ("report", "RUN"),
    "rescore": ("rescore", "RUN"),
    "calibrate": ("calibrate", "RUN"),
    "study": ("study", "timestep", "RUN", "--out", "OUT"),
}


def write(path, *, n=N, selected=N):
    """A run of n images, which is to have as many as selected."""
    errors, labels = tables(n, C, T, gap=0.02)
    header = {
        "data": {"n": selected, "name": "=toy"},
        "experiment": {"temperature": 1e-3},  # far too sure: there is much to mend
    }
    return write_run(path, errors, labels, header=header)


def in_progress(path):
    write(path, n=N // 2)


def damaged(path):
    """A run of which one file of two has lost its end."""
    whole = write(path.with_name("whole"))
    with open_run(path, whole.header, whole.prompts, save_errors=True) as run:
        for i, row in enumerate(whole.rows.to_pylist()):
            run.add(row)
            if i == N // 2 - 1:
                run.flush()
    part = sorted((path / "parts").iterdir())[1]
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])


STATES = {"in progress": in_progress, "damaged": damaged}


def invoke(command, tmp_path, *more):
    places = {"RUN": tmp_path / "run", "OUT": tmp_path / "out"}
    args = [str(places.get(arg, arg)) for arg in (*COMMANDS[command], *more)]
    return CliRunner().invoke(group, args)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_part_of_a_run_is_not_taken_for_the_whole(command, state, tmp_path):
    STATES[state](tmp_path / "run")
    done = invoke(command, tmp_path)
    assert done.exit_code == 2 and "Traceback" not in done.output
    told = f"{tmp_path / 'run'} is {state}: 20 of 40 images are there. The command that"
    assert told in done.stderr and "--allow-partial" in done.stderr
    if command in ("report", "rescore"):
        assert "of 40" in " ".join(done.stdout.split())
    allowed = invoke(command, tmp_path, "--allow-partial")
    assert allowed.exit_code == 0, allowed.output
    assert told in allowed.stderr and allowed.stdout == done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_whole_run_is_a_whole_run(command, tmp_path):
    write(tmp_path / "run")
    done = invoke(command, tmp_path)
    assert done.exit_code == 0, done.output
    assert "progress" not in done.output and "damaged" not in done.output


@pytest.mark.parametrize("state", STATES)
def test_every_file_says_so(state, tmp_path):
    STATES[state](tmp_path / "run")
    for command in ("report", "rescore", "calibrate"):
        done = invoke(command, tmp_path, "--json", "--allow-partial")
        found = json.loads(done.stdout)
        [found] = found if command == "report" else [found]
        assert (found["status"], found["images_selected"]) == (state, N)
    kept = json.loads((tmp_path / "run" / "calibration.json").read_text())
    assert (kept["status"], kept["images"]) == (state, N // 2)
    page, table = tmp_path / "page.html", tmp_path / "table.csv"
    files = ("--html", page, "--csv", table)
    assert invoke("report", tmp_path, *files, "--allow-partial").exit_code == 0
    assert f"run is {state}: 20 of 40 images" in page.read_text(encoding="utf-8")
    with table.open(newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["status"], row["images_selected"]) == (state, "40")


def test_what_was_damaged_and_is_done_again_is_whole(tmp_path):
    damaged(tmp_path / "run")
    with pytest.warns(UserWarning, match="damaged"):
        run = read_run(tmp_path / "run")
    assert run.status == "damaged" and len(run.damaged) == 1
    whole = read_run(tmp_path / "whole")
    with (
        pytest.warns(UserWarning, match="damaged"),
        open_run(run.path, run.header, run.prompts, save_errors=True) as writer,
    ):
        assert writer.done == set(range(N // 2))
        for row in whole.rows.to_pylist()[N // 2 :]:
            writer.add(row)
    again = read_run(run.path)
    assert again.status == "complete" and again.shortfall is None
    np.testing.assert_array_equal(
        again.rows["errors"].to_pylist(), whole.rows["errors"].to_pylist()
    )


def without_results(path):
    """A run of which the only file is damaged."""
    write(path)
    [part] = (path / "parts").iterdir()
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])


def all_failed(path):
    errors, labels = tables(0, C, T, gap=0.02)
    write_run(path, errors, labels, failed=(0, 1))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("write", "told"),
    [(without_results, "has no results yet"), (all_failed, "every image failed (2)")],
)
def test_nothing_is_no_result(write, told, command, tmp_path):
    write(tmp_path / "run")
    done = invoke(command, tmp_path)
    assert done.exit_code == 2 and done.stdout == ""
    assert f"error: {tmp_path / 'run'}" in done.stderr and told in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_odd_is_a_note_and_told_once(command, tmp_path):
    """No line of Python's warnings, with a place in the program."""
    damaged(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    done = invoke(command, tmp_path, "--allow-partial")
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stderr.splitlines() if "Wrote" not in line]
    assert all(line.startswith("note: ") for line in lines)
    assert len(set(lines)) == len(lines)
    assert sum("is damaged and left out" in line for line in lines) == 1
    assert sum("run.json is not JSON" in line for line in lines) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_images_that_failed_are_told(command, tmp_path):
    errors, labels = tables(N, C, T, gap=0.02)
    write_run(tmp_path / "run", errors, labels, failed=(N, N + 1))
    done = invoke(command, tmp_path)
    assert done.exit_code == 0, done.output
    told = "2 left out" if command == "calibrate" else "2 of 42 images failed"
    assert told in " ".join(done.output.split())
    if command in ("report", "rescore"):
        found = json.loads(invoke(command, tmp_path, "--json").stdout)
        found = found[0] if command == "report" else found
        assert found["failed_images"] == 2


# ---- cells that are no formulas


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@sum", "\t=1", "\r=1", "'=1"])
def test_a_cell_is_no_formula(text):
    row = guarded({"model": text, "acc1": -0.5, "n": None})
    assert row == {"model": f"'{text}", "acc1": -0.5, "n": None}
    assert plain(row["model"]) == text


@pytest.mark.parametrize("text", ["a=1", "'quoted'", "½", "", "sd-2-base"])
def test_other_cells_stay(text):
    assert guarded({"a": text}) == {"a": text} and plain(text) == text


def test_the_table_of_a_report_holds_no_formula(tmp_path):
    write(tmp_path / "run")
    table = tmp_path / "table.csv"
    assert invoke("report", tmp_path, "--csv", table).exit_code == 0
    with table.open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row["dataset"] == "'=toy"
