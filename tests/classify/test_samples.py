"""Learned samples from labelled images to decisions, with a model of known answer."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from noise_runs import task_of
from test_from_denoiser import MEANS, NAMES, drawn, mixtures

from diffjax.classify.samples import read_samples, write_samples
from diffjax.data.sources import Example
from diffjax.errors import DiffjaxError
from diffjax.evaluation.learning import Course, improve, write_noises
from diffjax.evaluation.runner import evaluate
from diffjax.models.conditions import take
from diffjax.runs.folder import read_run
from diffjax.runs.learning import learn_samples
from diffjax.scoring.tuning import (
    Fixed,
    Lessons,
    Tuned,
    image_errors,
    judge,
    slope,
    tune,
)

CLOSE = 0.35 * MEANS  # classes that are not always told apart


class Pictures:
    """Images of mixtures and their likeliest classes."""

    name, split, fingerprint = "pictures", "test", "a" * 16
    class_names, model_classes = tuple(NAMES), None

    def __init__(self, n):
        self.images, odds = drawn(0, n, CLOSE)
        self.of = odds.argmax(axis=1)

    def __len__(self):
        return len(self.of)

    def __getitem__(self, i):
        return Example(image=self.images[i], label=int(self.of[i]), id=f"{i}")

    def __iter__(self):
        return map(self.__getitem__, range(len(self)))

    def labels(self):
        return self.of


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A task, its run under shared noise, and samples learned of it."""
    place = tmp_path_factory.mktemp("learned")
    options = {"noise": "shared", "strategy": "exhaustive:n_samples=8"}
    classifier = mixtures(means=CLOSE, **options)
    task = task_of(Pictures(60))
    evaluate(task, classifier, place / "run", save_errors=True)
    run = read_run(place / "run")
    samples, _ = learn_samples(run, count=3)
    write_samples(place / "samples.json", samples)
    return task, classifier, run, samples, place


def test_records_by_learned_samples_are_weighted_means_of_the_runs_errors(learned):
    task, _, run, samples, place = learned
    clf = mixtures(means=CLOSE, samples=place / "samples.json", strategy="exhaustive")
    columns = [run.rows["timesteps"][0].as_py().index(t) for t in samples.timesteps]
    saved = np.array(run.rows["errors"].to_pylist()).reshape(60, 3, 8)[:, :, columns]
    images = [task.source[i].image for i in range(6)]
    for record, errors in zip(clf.classify(images), saved, strict=False):
        np.testing.assert_allclose(record.table.errors, errors, rtol=1e-4)
        mean = np.average(record.table.errors, axis=1, weights=samples.weights)
        np.testing.assert_allclose(record.decision.mean_error, mean, rtol=1e-6)
        assert record.decision.winner == mean.argmin()
        told = record.as_dict()
        assert (
            told["few_shot"]
            == "few-shot (samples learned on 60 images of pictures test)"
        )
        kept = [each["weight"] for each in told["samples"]]
        assert kept == pytest.approx(samples.weights)
        assert "few-shot" in repr(record) and "few-shot" in record._repr_html_()
        assert told["temperature"] == samples.temperature
    with pytest.raises(DiffjaxError, match="errors of another model"):
        mixtures(samples=samples)


def test_a_run_by_them_says_so_and_races_agree(learned, tmp_path):
    task, _, _, samples, _ = learned
    runs = {}
    for name in ("exhaustive", "racing:floor=2:chunk=1:confidence=0.999"):
        clf = mixtures(means=CLOSE, samples=samples, strategy=name)
        path = tmp_path / name[:6]
        evaluate(task, clf, path)
        runs[name] = read_run(path)
        told = runs[name].header["experiment"]
        assert told["samples"]["timesteps"] == list(samples.timesteps)
        assert told["noise"] == "shared" and told["seed"] == samples.seed
        assert "few-shot" in repr(runs[name])
    one, other = (run.rows["prediction"].to_numpy() for run in runs.values())
    assert (one == other).mean() > 0.9


@pytest.fixture(scope="module")
def lessons(learned):
    task, classifier, _, samples, _ = learned
    z0 = [np.asarray(classifier.encode(task.source[i].image).z0) for i in range(5)]
    labels = task.source.labels()[:5].astype(np.int32)
    fixed = Fixed(
        denoiser=classifier.grid.denoiser,
        schedule=classifier.grid.schedule,
        conditions=task.candidates(classifier).conditions,
        timesteps=np.array(samples.timesteps, np.int32),
    )
    draw = classifier.grid.noise.draw
    noises = [draw(0, k, classifier.latent_shape) for k in samples.noises]
    tuned = Tuned(noises=jnp.stack(noises), scales=jnp.full(3, 3.0))
    return tuned, fixed, Lessons(z0=np.stack(z0), labels=labels, told={})


def test_the_slope_is_that_of_finite_differences(lessons):
    tuned, fixed, some = lessons

    def value(noises, scales):
        errors = image_errors(noises, fixed, some, loss="l2")
        odds = jax.nn.log_softmax(-errors @ jnp.exp(scales))
        return float(-odds[np.arange(5), some.labels].mean())

    found, gradient = slope(tuned, fixed, some, loss="l2", rivals=2)  # all others
    assert found == pytest.approx(value(tuned.noises, tuned.scales), rel=1e-5)
    rng = np.random.default_rng(0)
    for _ in range(3):
        way = rng.standard_normal(tuned.noises.shape).astype("f4")
        h = 0.02
        ends = [value(tuned.noises + s * h * way, tuned.scales) for s in (1, -1)]
        expected = (ends[0] - ends[1]) / (2 * h)
        assert float((gradient.noises * way).sum()) == pytest.approx(
            expected, rel=0.02, abs=1e-4
        )
    for k in range(3):
        way = 0.02 * np.eye(3, dtype="f4")[k]
        ends = [value(tuned.noises, tuned.scales + s * way) for s in (1, -1)]
        expected = (ends[0] - ends[1]) / 0.04
        assert float(gradient.scales[k]) == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_tuning_gives_what_was_best_on_the_images_held_out(lessons):
    tuned, fixed, some = lessons
    taught, held = take(some, np.arange(3)), take(some, np.arange(3, 5))
    looks = []
    how = {"loss": "l2", "at_once": 2}
    best = tune(
        tuned, fixed, taught, held, steps=9, batch=3, rate=0.05, every=3, patience=9,
        rivals=2, watch=looks.append, **how,
    )  # fmt: skip
    assert [look.step for look in looks] == [0, 3, 6, 9]
    least = min(look.held for look in looks)
    assert judge(best, fixed, held, **how)[0] == pytest.approx(least)
    before = judge(tuned, fixed, taught, **how)[0]
    assert judge(best, fixed, taught, **how)[0] <= before


def test_improved_noises_are_read_back_and_used(learned, tmp_path):
    task, classifier, run, samples, _ = learned
    course = Course(per_class=4, steps=6, batch=6, every=3, rate=0.05)
    better, noises = improve(samples, run, task, classifier, course)
    path = tmp_path / "better.json"
    written = write_noises(path, better, noises)
    assert read_samples(path) == written and written.noise.startswith("sha256 ")
    assert sorted(written.timesteps) == sorted(samples.timesteps)
    clf = mixtures(means=CLOSE, samples=path, strategy="exhaustive")
    image = clf.encode(task.source[0].image)
    of = Lessons(z0=image.z0[None], labels=np.zeros(1, np.int32), told={})
    fixed = Fixed(
        denoiser=clf.grid.denoiser,
        schedule=clf.grid.schedule,
        conditions=task.candidates(clf).conditions,
        timesteps=np.array(written.timesteps, np.int32),
    )
    [expected] = image_errors(noises, fixed, of, loss="l2")
    record = clf.classify(task.source[0].image)
    np.testing.assert_allclose(record.table.errors, expected, rtol=1e-4)
    with pytest.raises(DiffjaxError, match=r"takes 80.*--teachers"):
        improve(samples, run, task, classifier, replace(course, per_class=40))
