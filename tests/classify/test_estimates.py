import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from small import SCHEDULE, class_model, images, one_level_denoiser, text_model

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.cli.dry_run import Outlook, outlook_table
from diffjax.cli.tables import ranking_table
from diffjax.data.sources import Example
from diffjax.errors import DiffjaxError, NotFiniteError
from diffjax.evaluation.plan import make_plan
from diffjax.evaluation.probe import Begun
from diffjax.evaluation.runner import evaluate
from diffjax.evaluation.task import make_task
from diffjax.models.conditions import take
from diffjax.report.plots import classification_figure, save_figure
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import summary
from diffjax.strategies.base import GRADIENT_COST
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing
from diffjax.strategies.shortlist import CHECKED, CHECKS, Shortlist

S = 4  # samples
C = 10  # classes
EXHAUSTIVE = Exhaustive(n_samples=S)
SHORTLIST = Shortlist(k=3, n_samples=S)


@pytest.fixture(scope="module")
def classifier():
    settings = Settings(strategy=EXHAUSTIVE, shortlist=SHORTLIST, cells=4)
    return DiffusionClassifier(class_model(), settings)


def variant(classifier, **settings):
    return DiffusionClassifier(
        classifier.model, dataclasses.replace(classifier.settings, **settings)
    )


@pytest.fixture(scope="module")
def everything(classifier):
    """The record without a shortlist."""
    return variant(classifier, shortlist=None).classify(images(1)[0])


@pytest.fixture(scope="module")
def record(classifier):
    return classifier.classify(images(1)[0])


def test_only_the_shortlist_is_evaluated(record, everything):
    decision = record.decision
    seen = decision.n_samples > 0
    assert seen.sum() == 3
    np.testing.assert_allclose(record.errors[seen], everything.errors[seen], rtol=1e-4)
    assert np.isnan(record.errors[~seen]).all()
    assert decision.winner == np.argmin(
        np.where(seen, everything.decision.mean_error, np.inf)
    )
    assert decision.n_gradients == S
    assert record.evaluations == 3 * S + GRADIENT_COST * S
    assert everything.decision.n_gradients == 0
    assert everything.evaluations == C * S


def test_estimates_are_exact_where_classes_are_the_base(classifier):
    """Gradients and tiles see the same samples, noise and conditions."""
    ours = variant(classifier, shortlist=SHORTLIST, noise="shared")
    every = ours.candidates(None)
    same = take(every.conditions, np.full(C, 4))  # so their mean is each of them
    estimates = ours.estimates(dataclasses.replace(every, conditions=same))
    pixels = ours.pixels(images(1)[0])
    z0 = np.asarray(ours.model.latent(pixels))
    found = estimates.of(z0, key=123)
    expected = variant(ours, shortlist=None).classify(images(1)[0]).errors
    np.testing.assert_allclose(found, np.tile(expected[4], (C, 1)), rtol=1e-4)
    assert estimates.n_gradients == S


def test_classes_that_are_not_on_it_are_told(record):
    scores = record.scores()
    assert [entry["score"] for entry in scores[3:]] == [0.0] * 7
    assert all(entry["pruned"] and entry["n_samples"] == 0 for entry in scores[3:])
    assert sum(entry["score"] for entry in scores) == pytest.approx(1)
    told = json.loads(json.dumps(record.as_dict(), allow_nan=False))
    assert told["gradients"] == S
    assert told["settings"]["shortlist"] == dataclasses.asdict(SHORTLIST)
    mean, standard_error = record.differences()
    assert np.isnan(mean).sum() == 7
    assert np.isinf(standard_error).sum() == 7


def test_tables_and_plots_cope(record, tmp_path):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(ranking_table(record, "an image"))
    text = console.export_text()
    assert text.count("not listed") == 7
    assert text.count("unknown") == 7
    figure = classification_figure([record], ["an image"])
    shown = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert shown.count("not on the shortlist") == 7
    assert "shortlist k=3:n_samples=4" in figure.get_supxlabel()
    save_figure(figure, tmp_path / "plot.png")


def test_prompts_are_estimated_too():
    shortlist = Shortlist(k=3, n_samples=S)
    settings = Settings(strategy=EXHAUSTIVE, shortlist=shortlist, cells=4)
    ours = DiffusionClassifier(text_model(denoiser=one_level_denoiser()), settings)
    labels = [f"label {i}" for i in range(6)]
    candidates = ours.candidates(labels, ["a {}.", "the {}"])
    record = ours.classify(images(1)[0], candidates)
    assert record.prompt_decision.n_gradients == S
    assert (record.decision.n_samples == S).sum() == 3
    seen = record.prompt_decision.n_samples.reshape(6, 2) > 0
    assert (seen[:, 0] == seen[:, 1]).all()  # both prompts of a class, or none
    assert ours.estimates(candidates) is ours.estimates(candidates)


def test_all_that_auto_takes_is_counted():
    settings = Settings(
        strategy=Racing(n_samples=S),
        shortlist=Shortlist(risk=0.3, directions=2),
        cells=4,
    )
    ours = DiffusionClassifier(text_model(denoiser=one_level_denoiser()), settings)
    candidates = ours.candidates([f"label {i}" for i in range(40)])
    record = ours.classify(images(1)[0], candidates)
    cells = int((~np.isnan(record.errors)).sum())
    second_order, checks = S * (1 + 2), CHECKED * CHECKS
    assert record.evaluations == cells + GRADIENT_COST * S + second_order + checks
    few = ours.candidates([f"label {i}" for i in range(32)])
    assert ours.estimates(few) is None  # it could save nothing


def test_no_gradients_where_all_classes_are_on_it(classifier):
    few = classifier.candidates(["class 3", "class 5", "class 8"])
    assert classifier.estimates(few) is None
    record = classifier.classify(images(1)[0], few)
    assert record.decision.n_gradients == 0
    assert record.evaluations == 3 * S


def test_an_overflow_fails_the_image_alone(classifier, monkeypatch):
    from diffjax.classify.estimates import Estimates

    monkeypatch.setattr(
        Estimates, "of", lambda self, z0, key, told: np.full((C, S), np.nan, np.float32)
    )
    with pytest.raises(NotFiniteError, match="gradients of the shortlist"):
        classifier.classify(images(1)[0])


def test_a_schedule_may_be_too_short(classifier):
    ours = variant(classifier, shortlist=Shortlist(k=3, n_samples=1001))
    with pytest.raises(DiffjaxError, match=f"only {SCHEDULE.n_timesteps}"):
        ours.classify(images(1)[0])


def test_text_is_a_shortlist_too():
    with pytest.raises(DiffjaxError, match="no setting 'kk'"):
        DiffusionClassifier.from_pretrained("tiny", shortlist="kk=50")


# --- Data sets


class Source:
    name, split, fingerprint = "made", "test", "f" * 16
    class_names = tuple(f"class {i}" for i in range(C))
    model_classes = None

    def __len__(self):
        return 5

    def __getitem__(self, index):
        image = np.asarray(Image.fromarray(images(5)[index]))
        return Example(image=image, label=index, id=str(index))

    def __iter__(self):
        return map(self.__getitem__, range(5))

    def labels(self):
        return np.arange(5, dtype=np.int32)


@pytest.fixture(scope="module")
def task():
    return make_task(Source(), np.arange(5))


def test_rows_of_a_run_cope(classifier, task, tmp_path):
    evaluate(task, classifier, tmp_path / "run", save_errors=True)
    run = read_run(tmp_path / "run")
    rows = run.rows.to_pylist()
    for row in rows:
        seen = np.array(row["n_samples"]) > 0
        assert seen.sum() == 3
        assert set(row["ranking"][:3]) == set(np.flatnonzero(seen))
        assert (np.isnan(row["differences"]) == ~seen).all()
        assert row["evaluations"] == 3 * S + GRADIENT_COST * S
        assert np.isfinite([row["margin"], row["margin_error"]]).all()
    told = summary(run)
    assert told["evaluations_per_image"] == 3 * S + GRADIENT_COST * S
    assert told["metrics"]["acc1"] is not None
    assert run.header["experiment"]["shortlist"]["k"] == 3


def test_a_run_goes_on_under_the_same_shortlist_alone(classifier, task, tmp_path):
    evaluate(task, classifier, tmp_path / "run")
    other = variant(classifier, shortlist=Shortlist(k=4, n_samples=S))
    with pytest.raises(DiffjaxError, match="shortlist"):
        evaluate(task, other, tmp_path / "run")


def test_a_plan_counts_gradients(classifier, task):
    plan = make_plan(task, classifier)
    without = make_plan(task, variant(classifier, shortlist=None))
    assert plan.gradients_per_image == S
    assert plan.evaluations_per_image == 3 * S + GRADIENT_COST * S
    assert without.gradients_per_image == 0
    assert without.evaluations_per_image == C * S
    evaluation = without.flops_per_image / without.passes_per_image
    gradients = plan.flops_per_image - plan.passes_per_image * evaluation
    assert 1.8 < gradients / S / evaluation < 3.5
    assert plan.seconds_per_image > 0
    rest = {"first_prompt": None, "out": Path("r"), "expected": None}
    told = Outlook(model="m", strategy="s", loss="l2", begun=Begun(), plan=plan, **rest)
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(outlook_table(told))
    ratio = plan.gradient_in_evaluations
    assert ratio > 0 and without.gradient_in_evaluations is None
    assert f"3 evaluations and takes the time of {ratio:.1f}" in console.export_text()
