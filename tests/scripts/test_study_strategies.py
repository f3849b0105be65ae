"""The study of strategies, on runs that are made of tables."""

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pipelines
import pytest
from click.testing import CliRunner
from saved_runs import tables, write_run
from tiny_sets import write_folder

from diffjax.cli.commands import group
from diffjax.strategies.exhaustive import Exhaustive

SCRIPT = Path(__file__).parents[2] / "scripts" / "study_strategies.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("study_strategies", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "study_strategies", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def study(script, monkeypatch):
    def call(*arguments, **changes):
        for name, value in changes.items():
            monkeypatch.setattr(script, name, value)
        monkeypatch.setattr(sys, "argv", ["study", *map(str, arguments)])
        script.main()

    return call


def test_strategies_are_compared_with_all_samples(study, tmp_path, capsys):
    errors, labels = tables(20, 6, 50)
    write_run(tmp_path / "a", errors, labels, failed=[20])
    errors, labels = tables(2, 100, 50, gap=3)
    write_run(tmp_path / "b", errors, labels)
    study(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    with (tmp_path / "out" / "strategies.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    a = {row["strategy"]: row for row in rows if row["run"] == "a"}
    b = {row["strategy"]: row for row in rows if row["run"] == "b"}
    full = a["exhaustive:n_samples=50"]
    assert (full["images"], full["evaluations"], full["agree"]) == ("20", "300.0", "20")
    staged = a["staged:to_keep=5,1:n_samples=5,50"]
    assert float(staged["evaluations"]) == 6 * 5 + 5 * 45
    assert "staged:to_keep=20,10,5,1:n_samples=2,5,10,50:order=nested" in b
    for own in (a, b):
        raced = [own[name] for name in own if name.startswith("racing")]
        needed = [float(row["evaluations"]) for row in raced]
        assert needed == sorted(needed)
        assert needed[-1] < float(own["exhaustive:n_samples=50"]["evaluations"])
    assert {row["agree"] for row in b.values()} == {"2"}  # so large a gap is plain
    text = (tmp_path / "out" / "strategies.md").read_text(encoding="utf-8")
    assert text.strip() in capsys.readouterr().out
    assert "## a\n\n20 images." in text
    assert (tmp_path / "out" / "strategies.png").stat().st_size > 10_000


def test_a_tree_goes_on_with_the_classes_of_the_best_groups(script):
    truth = np.array([0, 1, 2, 0, 2, 2, 1, 0, 1, 1])
    random = np.random.default_rng(0)
    vectors = 9 * np.eye(3)[truth] + random.standard_normal((10, 3))
    groups, speakers = script.branches(vectors, 3)
    assert (groups[:, None] == groups).tolist() == (truth[:, None] == truth).tolist()
    for g, speaker in enumerate(speakers):
        mine = vectors[groups == g]
        off = np.linalg.norm(mine - mine.mean(axis=0), axis=1)
        np.testing.assert_array_equal(vectors[speaker], mine[off.argmin()])
    errors = np.where(truth == 1, 0.5, 1)[:, None] + random.random((10, 8)) / 9
    state = Exhaustive(n_samples=8).start(10, 8, np.arange(10))
    tree = script.Tree(share=1 / 3, n_samples=4)
    state = script.branch(tree, groups, speakers, state, errors)
    np.testing.assert_array_equal(state.living, truth == 1)
    assert state.n_evaluations == 3 * 4


def test_runs_without_errors_are_refused(study, tmp_path):
    errors, labels = tables(2, 3, 16)
    write_run(tmp_path / "run", errors, labels, save_errors=False)
    with pytest.raises(SystemExit, match="--save-errors"):
        study(tmp_path / "run", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_shortlists_are_made_by_the_runs_own_model(study, tmp_path):
    pipelines.stable_diffusion(tmp_path / "sd")
    write_folder(tmp_path / "photos", dict.fromkeys("abcd", 1))
    asked = (
        *("evaluate", "--dataset", tmp_path / "photos", "--model", tmp_path / "sd"),
        *("--strategy", "exhaustive:n_samples=16", "--save-errors", "--cells", "8"),
        *("--out", tmp_path / "run"),
    )
    result = CliRunner().invoke(group, [*map(str, asked)])
    assert result.exit_code == 0, result.output
    out = ("--out", tmp_path / "out")
    study(tmp_path / "run", "--live", *out, ESTIMATES=({"n_samples": 2},))
    with (tmp_path / "out" / "strategies.csv").open(encoding="utf-8") as file:
        rows = {row["strategy"]: row for row in csv.DictReader(file)}
    for k in (2, 3):
        row = rows[f"k={k}:n_samples=2, racing:n_samples=16"]
        assert k * 4 + 6 <= float(row["evaluations"]) <= k * 16 + 6
        assert int(row["agree"]) <= int(row["as_good"]) <= 4
    other = pipelines.randomise(pipelines.unet(), seed=9)
    pipelines.stable_diffusion(tmp_path / "other", unet=other)
    with pytest.raises(SystemExit, match="other weights"):
        study(tmp_path / "run", "--live", "--model", tmp_path / "other", *out)
