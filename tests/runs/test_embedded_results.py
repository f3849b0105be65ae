"""What is said of the embedded models is what the saved runs of these weights found."""

import csv
import json
from pathlib import Path

import pytest

from diffjax.baselines.own import load_classifier
from diffjax.checkpoints.loading import load_model
from diffjax.data.corruptions import every_corruption
from diffjax.report.compare import read_report
from diffjax.runs.folder import read_run
from diffjax.runs.rescoring import agreement, rescore

ROOT = Path(__file__).parents[2]
SAVED = ROOT / "notebooks" / "saved"
RUNS = {
    "tiny-cifar10": "tiny",
    "study": "tiny",
    "scenes": "tiny",
    "dit-fashion": "tiny-dit",
    "flow-fashion": "tiny-flow",
    "resnet-cifar10": "resnet",
}


def read(run, name):
    return json.loads((SAVED / run / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def fingerprints():
    return {
        "tiny": load_model("tiny").weights,
        "tiny-dit": load_model("tiny-dit").weights,
        "tiny-flow": load_model("tiny-flow").weights,
        "resnet": load_classifier("resnet").network.fingerprint,
    }


@pytest.mark.parametrize(("run", "model"), RUNS.items())
def test_a_saved_run_is_of_the_embedded_weights(run, model, fingerprints):
    header = read(run, "run.json")["model"]
    weights = header.get("weights", header["fingerprint"])  # the latter of before
    assert (header["name"], weights) == (model, fingerprints[model])


@pytest.mark.parametrize("run", sorted(set(RUNS) - {"scenes"}))
def test_a_saved_run_is_read_and_reported(run):
    [row] = read_report([SAVED / run]).rows
    summary = read(run, "summary.json")
    assert row["acc1"] == summary["metrics"]["acc1"]
    assert row["status"] == "complete" and row["failed_images"] == 0


def test_a_saved_run_is_decided_again():
    run = read_run(SAVED / "study")
    again = rescore(run)
    assert len(again.good) == 100 and agreement(again) == 1


def test_the_table_of_shifts_is_of_the_embedded_resnet(fingerprints):
    with (SAVED / "shifts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["model_fingerprint"] for row in rows} == {fingerprints["resnet"]}
    names = [str(each).replace(":", "-") for each in every_corruption()]
    assert [row["run"] for row in rows] == ["clean", *names]
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for row in rows:
        assert f"{100 * float(row['acc1']):.1f} %" in text, row["run"]


@pytest.mark.parametrize("run", sorted(set(RUNS) - {"study", "scenes"}))
def test_readme_and_card_have_the_accuracy_of_the_run(run):
    summary = read(run, "summary.json")
    low, high = (f"{100 * x:.1f}" for x in summary["intervals"]["acc1"])
    card = ROOT / "diffjax" / "assets" / RUNS[run] / "README.md"
    for path in (ROOT / "README.md", card):
        text = path.read_text(encoding="utf-8")
        assert f"{100 * summary['metrics']['acc1']:.1f} %" in text, path
        assert f"{low} to {high}" in text, path


def test_the_scores_of_every_tag_are_in_the_documentation():
    summary = read("scenes", "summary.json")
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for tag, entry in (summary["by_tag"] | {"all": summary["overall"]}).items():
        score, n = entry["text"]["score"], entry["n"]
        assert f"| {tag} | {n} | {100 * score:.1f} % (" in text, tag


def test_readme_tells_attributes_from_places():
    tags = read("scenes", "summary.json")["by_tag"]
    places = {"Noun Phrase", "Preposition"}  # the same things, elsewhere
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, chosen in (("places alone", places), ("attributes", set(tags) - places)):
        n = sum(tags[tag]["n"] for tag in chosen)
        right = sum(tags[tag]["n"] * tags[tag]["text"]["score"] for tag in chosen)
        expected = f"other {name}, {n} pairs | | {100 * right / n:.1f} % ("
        assert expected in readme
