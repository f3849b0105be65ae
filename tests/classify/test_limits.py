"""What small models say of labels that they never saw."""

import json
import re
import warnings

import numpy as np
import pytest
from noise_runs import Made, task_of

from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.resolving import resolve
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.explanation import explain
from diffjax.classify.settings import Settings
from diffjax.data.scenes import scenes
from diffjax.errors import DiffjaxError
from diffjax.evaluation.runner import evaluate
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import summary
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.training.recipes import TEMPLATES

IMAGE = np.zeros((32, 32, 3), np.uint8)
CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@pytest.fixture(scope="module")
def classifier():
    return DiffusionClassifier(
        load_model("tiny"), Settings(strategy=Exhaustive(n_samples=2))
    )


def test_the_words_are_those_of_the_captions():
    _, captions = scenes(3000, 0)
    text = " ".join([*captions, *TEMPLATES, *CIFAR10]).lower().replace("{}", " ")
    assert load_model("tiny").limits.words == set(re.findall(r"[a-z]+", text))


@pytest.mark.filterwarnings("error")
def test_of_labels_that_it_saw_nothing_is_said(classifier):
    scene = "a small red circle to the left of a large blue square"
    record = classifier.classify(IMAGE, [*CIFAR10, "A photo of one Frog!", scene])
    assert record.limits is None and "limits" not in record.as_dict()


def test_others_are_warned_of_in_one_line(classifier):
    with pytest.warns(UserWarning) as caught:
        record = classifier.classify(IMAGE, ["ship", "rocket", "cruise ship", "a cat"])
    [warning] = caught
    line = str(warning.message)
    assert line == record.limits == json.loads(json.dumps(record.as_dict()))["limits"]
    assert "'rocket', 'cruise ship'," in line and "'ship'" not in line.split(",")[0]
    assert "CIFAR-10" in line and "sd-2-base" in line and "\n" not in line
    assert "sd-2-base" in MODELS


def test_of_many_some_are_named(classifier):
    with pytest.warns(UserWarning, match=r"'a0', 'a1', 'a2' and 7 more"):
        classifier.candidates([f"a{i}" for i in range(10)])


def test_explanations_and_runs_keep_the_line(classifier, tmp_path):
    with pytest.warns(UserWarning, match="never saw 'rocket'"):
        assert (
            "'rocket'"
            in explain(classifier, IMAGE, "ship", "rocket", n_samples=2).limits
        )
        source = Made(names=("ship", "rocket"), order=range(2))
        evaluate(task_of(source), classifier, tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert "'rocket'" in run.header["limits"] and "'rocket'" in summary(run)["limits"]


def test_a_class_conditional_model_says_it_with_its_error():
    clf = DiffusionClassifier.from_pretrained("tiny-dit")
    with pytest.raises(DiffjaxError, match=r"'rocket'.*Fashion-MNIST.*sd-2-base"):
        clf.classify(IMAGE, ["Coat", "rocket"])


def test_of_other_parts_nobody_knows():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixed = load_model("tiny", unet=resolve("tiny") / "unet")
    assert mixed.limits is None
    assert load_model(resolve("tiny")).limits == load_model("tiny").limits


def test_confidence_says_what_it_is_of(classifier):
    clf = DiffusionClassifier.from_pretrained("tiny", strategy="racing:n_samples=12")
    told = clf.classify(IMAGE, ["ship", "cat"]).as_dict()
    assert "all samples" in told["confidence_of"] and "not" in told["confidence_of"]
    told = classifier.classify(IMAGE, ["ship", "cat"]).as_dict()
    assert told["confidence"] is None and "confidence_of" not in told
