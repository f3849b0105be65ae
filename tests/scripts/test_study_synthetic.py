"""The study of a ResNet trained on drawn images, on the runs that come with us."""

import importlib.util
import sys
from pathlib import Path

import pytest
from commands import parse

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "study_synthetic.py"


@pytest.fixture
def study(monkeypatch):
    spec = importlib.util.spec_from_file_location("study_synthetic", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "study_synthetic", module)
    spec.loader.exec_module(module)
    monkeypatch.chdir(ROOT)
    return module


def test_its_commands_are_ours_and_its_table_says_what_runs_say(
    study, tmp_path, monkeypatch, capsys
):
    asked = []

    def run(arguments):
        asked.append(arguments)
        return 1.0

    kept = study.accuracy

    def accuracy(place):  # of what was not run, what tiny has
        there = Path(place).is_relative_to(study.SAVED)
        return kept(place if there else study.COMPARED["tiny, zero-shot"])

    monkeypatch.setattr(study, "run", run)
    monkeypatch.setattr(study, "accuracy", accuracy)
    out = tmp_path / "study"
    monkeypatch.setattr(sys, "argv", ["study", "--data-dir", "data", "--out", str(out)])
    study.main()
    for arguments in asked:
        parse(arguments)
    assert [arguments[0] for arguments in asked] == ["sample", "train", "baseline"]
    shown = capsys.readouterr().out
    assert "| tiny, zero-shot | 66.7 % (65.8 to 67.6) | 10,000 |" in shown
    assert "| ResNet, of all 50,000 real images | 78.1 % (77.2 to 78.9)" in shown
    assert "does not hold" in shown  # equal is not less
    assert (out / "study.json").exists()
