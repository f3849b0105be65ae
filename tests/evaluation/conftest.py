"""A classifier of each kind, and an undisturbed run."""

import pytest
from noise_runs import STAGED, Made, task_of
from saved_runs import kept
from small import class_model, text_model

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.evaluation.runner import evaluate
from diffjax.runs.folder import read_run


@pytest.fixture(scope="module")
def classifier():
    # two cells a tile: all rounds have tiles of one shape, compiled once
    return DiffusionClassifier(text_model(), Settings(strategy=STAGED, cells=2))


@pytest.fixture(scope="module")
def class_classifier():
    settings = Settings(strategy=STAGED, cells=2, also=("vlb", "l2+vlb"))
    return DiffusionClassifier(class_model(), settings)


@pytest.fixture(scope="module")
def whole(classifier, tmp_path_factory):
    """An undisturbed run over all images, with its tallies."""
    path, tallies = tmp_path_factory.mktemp("runs") / "whole", []
    evaluate(
        task_of(Made()),
        classifier,
        path,
        save_errors=True,
        progress=kept(tallies),
    )
    return read_run(path), tallies
