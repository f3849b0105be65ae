"""A race as it goes is the classification that it becomes."""

from itertools import pairwise

import numpy as np
import pytest
from small import glance, images, text_model

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.race import flops_each, race
from diffjax.classify.settings import Settings
from diffjax.strategies import parse_strategy

LABELS = ["cat", "dog", "ship", "frog", "horse"]


@pytest.fixture(scope="module")
def model():
    return text_model(denoiser=glance())


def make(model, strategy):
    return DiffusionClassifier(
        model, Settings(strategy=parse_strategy(strategy), cells=12)
    )


@pytest.mark.parametrize(
    "strategy",
    [
        "racing:n_samples=40:confidence=0.9",
        "staged:to_keep=2,1:n_samples=4,12:order=nested",
        "exhaustive:n_samples=6",
    ],
)
def test_it_ends_as_classify_decides(model, strategy):
    classifier, [image] = make(model, strategy), images(1)
    moments, counts = [], []

    def tell(moment):
        moments.append(moment)
        errors = None if moment.record is None else moment.record.table.errors
        counts.append(0 if errors is None else int((~np.isnan(errors)).sum()))

    record = race(classifier, image, classifier.candidates(LABELS), tell)
    known = classifier.classify(image, LABELS)
    np.testing.assert_array_equal(record.table.errors, known.table.errors)
    np.testing.assert_array_equal(record.decision.ranking, known.decision.ranking)
    assert record.evaluations == known.evaluations
    assert record.confidence == known.confidence
    assert record.settings == known.settings and record.scores() == known.scores()

    assert [moment.done for moment in moments] == [False] * (len(moments) - 1) + [True]
    assert moments[-1].record is record
    assert moments[-1].evaluations == moments[-1].most == record.evaluations
    for before, after in pairwise(moments):
        assert before.looks <= after.looks
        assert before.evaluations <= after.evaluations <= before.most
        assert after.most <= before.most
    for moment, count in zip(moments, counts, strict=True):
        if moment.record is None:
            assert moment.looks == 0
            continue
        # what was told stays as it was, and is of no more than had been evaluated
        assert (~np.isnan(moment.record.table.errors)).sum() == count
        assert moment.record.evaluations == count <= moment.evaluations
    if not strategy.startswith("exhaustive"):
        assert len({moment.looks for moment in moments}) > 1


def test_who_leaves_ends_it(model):
    classifier, [image] = make(model, "exhaustive:n_samples=100"), images(1)
    told = []

    def tell(moment):
        told.append(moment)
        if len(told) == 2:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        race(classifier, image, classifier.candidates(LABELS), tell)
    assert len(told) == 2 and told[-1].evaluations < 100


def test_an_evaluation_costs_what_one_class_alone_costs(model):
    classifier = make(model, "exhaustive:n_samples=6")
    few, many = (classifier.candidates(LABELS[:n]) for n in (2, 5))
    assert flops_each(classifier, few) == flops_each(classifier, many) > 0
