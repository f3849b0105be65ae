"""Which classes and prompts compete, and by which of the model's conditions."""

import dataclasses

import numpy as np
import pytest
from noise_runs import STAGED, Made, N, alone, class_source, tables, task_of, variant
from small import DIT, class_model, random

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.data.prefilter import Prefilter
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.evaluation.runner import evaluate
from diffjax.models.dit import DiTTransformer2DModel
from diffjax.runs.folder import read_run
from diffjax.strategies.exhaustive import Exhaustive

# ---- classes


def test_a_restriction_to_some_classes_keeps_their_numbers(classifier, tmp_path):
    path = tmp_path / "run"
    source = Made(("bee", "cat", "dog", "elk", "ship", "frog"))
    result = evaluate(task_of(source, classes=(1, 2, 4, 5)), classifier, path)
    run = read_run(path)
    assert run.header["classes"] == [1, 2, 4, 5]
    assert run.class_names == source.class_names
    assert run.prompts.class_names == ("cat", "dog", "ship", "frog")
    rows = run.rows.to_pylist()
    assert [row["index"] for row in rows] == [1, 2, 4, 5, 7, 8, 10, 11]
    assert {row["label"] for row in rows} == {1, 2, 4, 5}
    assert {tuple(sorted(row["ranking"])) for row in rows} == {(1, 2, 4, 5)}
    assert {row["ranking"][0] == row["prediction"] for row in rows} == {True}
    assert result["images"] == 8 and result["labels_not_among_candidates"] == 0
    # the same candidates by other numbers win on the same images
    other = tmp_path / "other"
    evaluate(task_of(Made(), [row["index"] for row in rows]), classifier, other)
    numbers = np.array([1, 2, 4, 5])
    for column in ("prediction", "ranking"):
        local = np.array(read_run(other).rows[column].to_pylist())
        expected = numbers[local].tolist()
        assert run.rows[column].to_pylist() == expected


def test_prompts_of_a_class_compete(classifier, tmp_path):
    path = tmp_path / "run"
    prompts = Prompts(
        prompts=("a cat", "dog!", "one cat", "the dog"),
        classidx=(0, 1, 0, 1),
        class_names=("cat", "dog"),
    )
    exhaustive = variant(classifier, strategy=Exhaustive(n_samples=4))
    evaluate(
        task_of(Made(("cat", "dog")), prompts=prompts),
        exhaustive,
        path,
        save_errors=True,
    )
    run = read_run(path)
    assert run.prompts == prompts
    rows = run.rows.to_pylist()
    winners = set()
    for row, errors in zip(rows, tables(run.rows, 4), strict=True):
        means = errors.mean(axis=1, dtype=np.float64)
        winners.add(int(means.argmin()))
        assert row["prediction"] == means.argmin() % 2
        best = [min(means[0], means[2]), min(means[1], means[3])]
        assert row["ranking"] == np.argsort(best).tolist()
        np.testing.assert_allclose(row["margin"], abs(best[0] - best[1]), rtol=1e-4)
        assert row["evaluations"] == 4 * 4 and row["n_samples"] == [4, 4]
    assert winners - {0, 1}, "no row won whose number is not that of its class"


def test_the_mean_of_prompts_has_a_row_a_class(classifier, tmp_path):
    names = ("cat", "dog", "ship", "frog")
    prompts = Prompts.from_labels(names, ("a {}", "the {}"))
    mean = variant(classifier, merge="mean")
    evaluate(task_of(Made(), [0], prompts=prompts), mean, tmp_path / "run")
    stored = read_run(tmp_path / "run").prompts
    assert stored.classidx == (0, 1, 2, 3) and stored.prompts[1] == "a dog | the dog"


# ---- class-conditional models


@pytest.mark.parametrize(
    "strategy", [STAGED, Exhaustive(n_samples=4)], ids=["staged", "exhaustive"]
)
def test_one_run_over_all_classes_with_all_losses(class_classifier, tmp_path, strategy):
    classifier = variant(class_classifier, strategy=strategy)
    path = tmp_path / "run"
    result = evaluate(task_of(class_source()), classifier, path, save_errors=True)
    run = read_run(path)
    assert run.losses == ("vlb", "l2+vlb")
    assert {"acc1", "acc1_vlb", "acc1_l2+vlb"} <= set(result["metrics"])
    rows = run.rows.to_pylist()
    shape = (N, 10, 4)
    by_loss = {
        loss: np.array([row[f"errors{loss and '_'}{loss}"] for row in rows])
        .astype(np.float32)
        .reshape(shape)
        for loss in ("", "vlb", "l2+vlb")
    }
    seen = ~np.isnan(by_loss[""])
    for errors in by_loss.values():
        np.testing.assert_array_equal(~np.isnan(errors), seen)
    np.testing.assert_allclose(
        by_loss[""] + by_loss["vlb"], by_loss["l2+vlb"], rtol=1e-4, atol=1e-5
    )
    for i, row in enumerate(rows):
        alive = seen[i].all(axis=1)  # by the deciding loss
        for loss, errors in by_loss.items():
            means = np.where(alive, errors[i].mean(axis=1), np.inf)
            assert row[f"prediction{loss and '_'}{loss}"] == int(means.argmin())
        assert row["evaluations"] == seen[i].sum()
    # a data set's class 0 is the model's class 9
    candidates = classifier.candidates([f"c{9 - c}" for c in range(10)])
    example = class_source()[5]
    record = alone(classifier, example, candidates)
    np.testing.assert_allclose(by_loss[""][5], record.table.errors, rtol=1e-3)


def test_classes_of_a_class_model_may_be_restricted(class_classifier, tmp_path):
    path = tmp_path / "run"
    task = task_of(class_source(), classes=(0, 4, 5))
    evaluate(task, class_classifier, path)
    rows = read_run(path).rows.to_pylist()
    assert [row["label"] for row in rows] == [0, 4, 5, 0]
    assert {tuple(sorted(row["ranking"])) for row in rows} == {(0, 4, 5)}


def test_classes_that_a_model_does_not_know_are_refused(class_classifier, tmp_path):
    task = task_of(Made(("class 1", "zebra")))
    with pytest.raises(DiffjaxError, match=r"classes of made are not.*'zebra'"):
        evaluate(task, class_classifier, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def imagenet_classifier():
    """A model of 1,000 classes."""
    config = dataclasses.replace(DIT, num_embeds_ada_norm=1000)
    model = class_model(
        denoiser=random(DiTTransformer2DModel, config),
        n_classes=1000,
        class_names=tuple(f"name {i}" for i in range(1000)),
    )
    return DiffusionClassifier(
        model, Settings(strategy=Exhaustive(n_samples=4), cells=2)
    )


def test_several_model_classes_may_stand_for_a_class(imagenet_classifier, tmp_path):
    path = tmp_path / "run"
    ids = ((7,), (409, 530), (457, 906))
    names = ("towel", "clock", "tie")
    task = task_of(Made(names, model_classes=ids), [0, 1, 2])
    evaluate(task, imagenet_classifier, path, save_errors=True)
    run = read_run(path)
    assert run.prompts.classidx == (0, 1, 1, 2, 2)
    assert run.prompts.prompts == tuple(f"name {i}" for i in (7, 409, 530, 457, 906))
    assert run.prompts.class_names == names
    rows = run.rows.to_pylist()
    for row, errors in zip(rows, tables(run.rows, 5), strict=True):
        one, a, b, c, d = errors.mean(axis=1)
        assert row["prediction"] == int(np.argmin([one, min(a, b), min(c, d)]))
        assert len(row["ranking"]) == 3 and row["evaluations"] == 5 * 4


# ---- prefilters


def test_a_prefilter_leaves_the_rest_unevaluated(whole, classifier, tmp_path):
    left = {f"image {k}": (k % 4, 3) for k in range(N) if k != 5}

    def choose(example, pixels):
        if example.id not in left:
            raise DiffjaxError(f"{example.id} is unknown")
        return left[example.id]

    prefilter = Prefilter(name="clip.csv", choose=choose, fingerprint="0" * 16)
    indices = [2, 3, 4, 5, 7]
    task = task_of(Made(), indices, prefilter=prefilter)
    path = tmp_path / "run"
    result = evaluate(task, classifier, path, save_errors=True)
    rows = read_run(path).rows
    assert result["images"] == 4 and result["failed_images"] == 1
    assert result["prefilter"]["recall"] == 1
    assert rows["error"].to_pylist()[3] == "image 5 is unknown"
    alone, everything = tables(rows.filter(rows["error"].is_null()), 4), whole[0].rows
    for k, errors in zip((2, 3, 4, 7), alone, strict=True):
        chosen = sorted(set(left[f"image {k}"]))
        assert np.flatnonzero(~np.isnan(errors).all(axis=1)).tolist() == chosen
        both = ~np.isnan(errors) & ~np.isnan(tables(everything, 4)[k])
        np.testing.assert_allclose(
            errors[both], tables(everything, 4)[k][both], rtol=1e-5
        )
    other = dataclasses.replace(prefilter, fingerprint="1" * 16)
    with pytest.raises(DiffjaxError, match="prefilter"):
        evaluate(task_of(Made(), indices, prefilter=other), classifier, path)
    with pytest.raises(DiffjaxError, match="image 5 is unknown"):
        evaluate(task_of(Made(), [5], prefilter=prefilter), classifier, tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(("classes", "match"), [((), "no class"), ((9,), "class 9")])
def test_a_prefilter_that_leaves_nothing_is_refused(classes, match):
    prefilter = Prefilter(name="clip", choose=lambda example, pixels: classes)
    with pytest.raises(DiffjaxError, match=match):
        task_of(Made(), prefilter=prefilter).among(Made()[0], np.zeros((2, 2, 3)))


def test_a_function_leaves_labels_of_one_image(classifier):
    labels = ["cat", "dog", "ship"]
    record = classifier.classify(
        Made()[0].image, labels, prefilter=lambda pixels: np.array([2, 0])
    )
    assert record.among == (2, 0) and record.decision.n_samples[1] == 0
    assert record.as_dict()["among"] == ["ship", "cat"]
