"""Runs of a trained classifier."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx
from small_resnet import NAMES, small_classifier
from tiny_sets import write_folder

from diffjax.baselines.own import load_classifier, save_classifier
from diffjax.errors import DiffjaxError
from diffjax.evaluation import baselines
from diffjax.evaluation.baselines import evaluate_baseline
from diffjax.evaluation.experiment import Experiment
from diffjax.models.network import Network
from diffjax.report.compare import read_report
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import run_log_scores
from diffjax.runs.outcomes import outcomes


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return small_classifier(tmp_path_factory.mktemp("models") / "resnet")


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos", dict.fromkeys(NAMES, 3))


def task_of(folder, **kwargs):
    return Experiment(dataset=str(folder), **kwargs).task()


def probabilities(classifier, task):
    pixels = [classifier.pixels(task.source[int(i)].image) for i in task.indices]
    return classifier.log_probabilities(np.stack(pixels))


def test_a_run_holds_the_classifiers_probabilities(
    classifier, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(baselines, "CHUNK", 4)
    task = task_of(photos)
    result = evaluate_baseline(task, classifier, tmp_path / "run", asked={"a": 1})
    run = read_run(tmp_path / "run")
    found = outcomes(run)
    wanted = probabilities(classifier, task)
    np.testing.assert_array_equal(found.predictions, wanted.argmax(1))
    np.testing.assert_allclose(run_log_scores(found, 1.0), wanted, atol=1e-5)
    assert found.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert result["metrics"]["acc1"] == np.mean(wanted.argmax(1) == found.labels)
    kept = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert kept["metrics"] == result["metrics"] and kept["task"] == result["task"]
    low, high = result["intervals"]["acc1"]
    assert low < result["metrics"]["acc1"] < high
    assert result["temperature"] == 1.0 and result["evaluations_per_image"] == 1
    assert run.header["experiment"]["a"] == 1
    assert run.header["model"]["kind"] == "discriminative"
    report = read_report([tmp_path / "run"])
    assert report.groups[0].runs[0].row["acc1"] == result["metrics"]["acc1"]


def test_fewer_classes_compete(classifier, photos, tmp_path):
    (tmp_path / "two.txt").write_text("0\n2\n")
    task = task_of(photos, classes=str(tmp_path / "two.txt"))
    evaluate_baseline(task, classifier, tmp_path / "run")
    found = outcomes(read_run(tmp_path / "run"))
    wanted = probabilities(classifier, task)[:, [0, 2]]
    assert len(found.labels) == 6
    np.testing.assert_array_equal(found.predictions, 2 * wanted.argmax(1))


def test_it_goes_on_and_tells_of_broken_images(classifier, photos, tmp_path):
    broken = photos / "dog" / "1.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"no image")
    result = evaluate_baseline(task_of(photos), classifier, tmp_path / "run")
    assert (result["images"], result["failed_images"]) == (8, 1)
    broken.write_bytes(whole)
    result = evaluate_baseline(task_of(photos), classifier, tmp_path / "run")
    assert (result["images"], result["failed_images"]) == (9, 0)
    rows = [len(read_run(tmp_path / "run").rows)]
    assert rows == [9] and len(list((tmp_path / "run" / "parts").iterdir())) == 2


def broken(classifier, value):
    """With a number in the last layer that is not one: of one class of three."""
    module = nnx.clone(classifier.network.module())
    bias = np.array(module.head.bias[...])
    bias[1] = value
    module.head.bias = nnx.Param(bias)
    return replace(classifier, network=Network.of(module))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_overflow_is_no_decision(classifier, photos, tmp_path, value):
    bad = broken(classifier, value)
    result = evaluate_baseline(task_of(photos), bad, tmp_path / "run")
    assert (result["images"], result["failed_images"]) == (0, 9)
    assert set(result["metrics"].values()) == {None}
    for row in read_run(tmp_path / "run").rows.to_pylist():
        assert row["prediction"] is None and "overflowed" in row["error"]


def test_weights_that_are_no_numbers_are_refused(classifier, tmp_path):
    bad = broken(classifier, np.nan)
    save_classifier(bad.network.module(), NAMES, tmp_path)
    with pytest.raises(DiffjaxError, match=r"head\.bias holds .* NaN"):
        load_classifier(tmp_path)


def test_what_is_refused(classifier, photos, tmp_path):
    evaluate_baseline(task_of(photos), classifier, tmp_path / "run")
    other = small_classifier(tmp_path / "other", seed=1)
    with pytest.raises(DiffjaxError, match=r"model\.weights"):
        evaluate_baseline(task_of(photos), other, tmp_path / "run")
    corrupted = task_of(photos, corrupt="blur:2")
    with pytest.raises(DiffjaxError, match=r"data\.fingerprint"):
        evaluate_baseline(corrupted, classifier, tmp_path / "run")
    write_folder(tmp_path / "others", {"cat": 1, "cow": 1})
    with pytest.raises(DiffjaxError, match="'cow'"):
        evaluate_baseline(task_of(tmp_path / "others"), classifier, tmp_path / "x")
