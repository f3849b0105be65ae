"""The study of diffusion against flow, on two small models with random weights."""

import csv
import importlib.util
import sys
from pathlib import Path

import pipelines
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny_sets import write_folder

SCRIPT = Path(__file__).parents[2] / "scripts" / "study_flow.py"


@pytest.fixture
def study(monkeypatch):
    spec = importlib.util.spec_from_file_location("study_flow", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "study_flow", module)
    spec.loader.exec_module(module)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["study", *map(str, arguments)])
        module.main()

    return call


@pytest.mark.slow  # six runs
def test_both_are_compared_on_the_same_images(study, tmp_path, capsys):
    pipelines.dit_pipeline(tmp_path / "dit")
    pipelines.dit_pipeline(
        tmp_path / "flow",
        transformer=pipelines.dit(out_channels=4),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    write_folder(tmp_path / "photos", {f"class {c}": 4 for c in range(3)})
    asked = (
        *("--diffusion", tmp_path / "dit", "--flow", tmp_path / "flow"),
        *("--dataset", tmp_path / "photos", "--shifts", 2, "--limit", 9),
        *("--strategy", "exhaustive:n_samples=4", "--out", tmp_path / "out"),
    )
    study(*asked)
    with (tmp_path / "out" / "flow.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [(row["trained"], row["space"], row["shift"]) for row in rows]
    spaces = ("noise", "data", "velocity")
    assert found == [("diffusion", s, "") for s in spaces] + [
        ("flow", s, "2.0") for s in spaces
    ]
    assert {row["images"] for row in rows} == {"9"}
    assert {row["evaluations"] for row in rows} == {"12.0"}
    first = rows[0]
    assert (first["ahead"], first["p"]) == ("0.0", "1.0")
    for row in rows:
        difference = float(row["accuracy"]) - float(first["accuracy"])
        assert float(row["ahead"]) == pytest.approx(difference)
        assert float(row["ahead_low"]) <= difference <= float(row["ahead_high"])
    text = (tmp_path / "out" / "flow.md").read_text(encoding="utf-8")
    assert text.startswith("9 images.") and "| flow | velocity | 2 |" in text
    shown = capsys.readouterr().out
    assert shown.strip() in text
    study(*asked)  # all runs are there
    assert capsys.readouterr().out == shown
    with pytest.raises(SystemExit, match="error: "):
        study(*asked, "--strategy", "exhaustive:n_samples=2")
