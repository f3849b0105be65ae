"""What a race is expected to need: as a run's rows say, or as a few images show."""

import io
import itertools
import json
import types

import numpy as np
import pytest
from noise_runs import Made, N, task_of, variant
from rich.console import Console

from diffjax.cli.dry_run import outlook, outlook_table
from diffjax.evaluation import probe as probing
from diffjax.evaluation.probe import Begun, begun, expected, probe
from diffjax.evaluation.runner import evaluate
from diffjax.runs.folder import read_run
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing

RACE = Racing(n_samples=16, floor=2, chunk=1, confidence=0.5)
ASKED = {"save_errors": False}


@pytest.fixture(scope="module")
def race(classifier):
    return variant(classifier, strategy=RACE)


@pytest.fixture(scope="module")
def raced(race, tmp_path_factory):
    """A run of it: its folder, and the evaluations of its images."""
    path = tmp_path_factory.mktemp("raced") / "run"
    evaluate(task_of(Made()), race, path)
    return path, read_run(path).rows["evaluations"].to_pylist()


def test_a_probe_does_what_the_run_does(race, raced):
    _, evaluations = raced
    assert len(set(evaluations)) > 2, "nothing to learn"
    found = probe(task_of(Made()), race, n_images=N)
    assert found.evaluations_per_image == np.mean(evaluations)
    assert (found.least, found.most) == (min(evaluations), max(evaluations))
    assert (found.images, found.unfinished) == (N, 0)
    few = probe(task_of(Made()), race, n_images=3)
    assert few.evaluations_per_image == np.mean([evaluations[i] for i in (0, 4, 8)])


def test_a_probe_that_is_given_up_is_a_lower_bound(race, raced, monkeypatch):
    _, evaluations = raced
    clock = types.SimpleNamespace(monotonic=map(float, itertools.count()).__next__)
    monkeypatch.setattr(probing, "time", clock)
    found = probe(task_of(Made()), race, n_images=N, seconds=20.0)
    assert 0 < found.unfinished <= found.images
    assert found.evaluations_per_image * found.images < sum(evaluations)
    first = probe(task_of(Made()), race, seconds=0.0)
    assert first.unfinished == first.images


def test_rows_of_the_run_are_better_than_a_probe(race, raced, monkeypatch):
    path, evaluations = raced
    monkeypatch.delattr(probing, "time")  # which a probe needs
    there = begun(path, task_of(Made()), race, ASKED)
    assert there == Begun(done=N, evaluations=tuple(evaluations))
    assert expected(there.evaluations).evaluations_per_image == np.mean(evaluations)
    found = outlook(task_of(Made()), race, path, ASKED)
    assert found.expected.seen == "in the run" and found.expected_seconds == 0


def test_what_would_be_refused_is_said(race, raced, tmp_path):
    path, _ = raced
    other = variant(race, strategy=Exhaustive(n_samples=2))
    there = begun(path, task_of(Made()), other, ASKED)
    assert "strategy.name: racing there, exhaustive here" in there.refused
    assert not there.done
    told = outlook(task_of(Made()), other, path, ASKED, "\nDo otherwise.")
    assert told.as_dict()["refused"] == there.refused + "\nDo otherwise."
    assert begun(tmp_path, task_of(Made()), other, ASKED) == Begun()


@pytest.mark.parametrize("slow", [False, True])
def test_an_outlook_is_bounds_and_what_to_expect(race, raced, monkeypatch, slow):
    monkeypatch.setattr(probing, "SECONDS", -1.0 if slow else 60.0)
    found = outlook(task_of(Made(), range(3)), race, raced[0].parent / "new", ASKED)
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(outlook_table(found))
    text = console.export_text()
    told = json.loads(json.dumps(found.as_dict()))
    least, most = told["fewest_evaluations_per_image"], told["evaluations_per_image"]
    assert (least, most) == (2 * 4, 16 * 4)
    for part in ("racing:n_samples=16:confidence=0.5", "a photo of a cat.", "3 more"):
        assert part in text
    assert "at least" in text and f"{3 * most:,}" in text
    assert ("expected" in text) != slow
    if slow:
        assert told["expected"] is None and "not known" in text
    else:
        assert least <= told["expected"]["evaluations_per_image"] <= most
        assert told["expected"]["images"] == 3
