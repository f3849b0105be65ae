"""What a run writes of its images."""

import dataclasses
import io

import numpy as np
import pytest
from flax import nnx
from noise_runs import (
    STAGED,
    Made,
    N,
    alone,
    assert_same,
    key_of,
    tables,
    task_of,
    variant,
)
from PIL import Image
from saved_runs import kept

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.data.prompts import Prompts
from diffjax.data.sources import Source
from diffjax.errors import DiffjaxError
from diffjax.evaluation.runner import evaluate
from diffjax.models.diffusion import DiffusionModel
from diffjax.models.network import Network
from diffjax.runs.folder import read_run
from diffjax.strategies.base import ErrorTable, rank
from diffjax.strategies.base import run as run_strategy
from diffjax.strategies.exhaustive import Exhaustive

# ---- rows


def test_the_source_of_these_tests_is_one():
    assert isinstance(Made(), Source)


def test_a_row_is_what_the_classifier_says_of_the_image_alone(whole, classifier):
    run, _ = whole
    source = Made()
    prompts = Prompts.from_labels(source.class_names)
    assert run.prompts == prompts
    candidates = classifier.candidates(prompts)
    for index, row in enumerate(run.rows.to_pylist()):
        example = source[index]
        record = alone(classifier, example, candidates)
        assert (row["index"], row["id"]) == (index, example.id)
        assert row["label"] == example.label == index % 4
        assert row["prediction"] == record.decision.winner
        assert row["ranking"] == record.decision.ranking.tolist()
        means, errors = record.differences()
        close = {"rtol": 1e-3, "atol": 1e-6}  # another batch of the autoencoder
        np.testing.assert_allclose(row["differences"], means, **close)
        np.testing.assert_allclose(row["standard_errors"], errors, **close)
        runner_up = record.decision.ranking[1]
        np.testing.assert_allclose(row["margin"], means[runner_up], **close)
        np.testing.assert_allclose(row["margin_error"], errors[runner_up], **close)
        odds = {entry["label"]: entry["score"] for entry in record.scores()}
        expected = [odds[label] for label in record.labels]
        np.testing.assert_allclose(row["scores"], expected, rtol=1e-2)
        assert sum(row["scores"]) == pytest.approx(1, abs=1e-6)
        assert row["n_samples"] == record.decision.n_samples.tolist()
        assert row["evaluations"] == record.evaluations == 4 * 2 + 2 * 2
        assert row["seconds"] > 0
        assert row["error"] is None
    assert len(set(run.rows["prediction"].to_pylist())) > 1, "nothing to tell apart"


def test_saved_errors_tell_the_decision(whole):
    run, _ = whole
    for row, errors in zip(run.rows.to_pylist(), tables(run.rows, 4), strict=True):
        timesteps, noises = np.array(row["timesteps"]), np.array(row["noises"])
        samples = STAGED.start(4, 1000).samples
        np.testing.assert_array_equal(timesteps, samples.timesteps)
        np.testing.assert_array_equal(noises, samples.noises)
        table = ErrorTable(errors)
        assert table.n_samples().tolist() == row["n_samples"]

        def replay(state, request, errors=errors):
            return errors[np.ix_(request.classes, request.samples)]

        state = run_strategy(STAGED, 4, 1000, replay)
        assert rank(state).ranking.tolist() == row["ranking"]
        difference = table.difference(table.leaders(row["prediction"])).mean
        np.testing.assert_array_equal(row["differences"], difference.astype(np.float32))


def test_mistakes_have_thumbnails(whole):
    for row in whole[0].rows.to_pylist():
        assert (row["thumbnail"] is None) == (row["prediction"] == row["label"])
        if row["thumbnail"] is not None:
            with Image.open(io.BytesIO(row["thumbnail"])) as picture:
                assert (picture.format, picture.size) == ("JPEG", (16, 16))


def test_the_header_and_the_summary(whole, classifier):
    run, _ = whole
    experiment = run.header["experiment"]
    assert experiment["save_errors"] is True
    assert experiment["strategy"]["name"] == "staged"
    assert experiment["transform"] == "resize_crop" and experiment["resolution"] == 16
    assert "cells" not in experiment
    assert run.header["data"]["n"] == N
    assert run.header["environment"]["device"] == classifier.device
    assert len(run.header["model"]["fingerprint"]) == 16
    predictions, labels = (run.rows[c].to_numpy() for c in ("prediction", "label"))
    text = (run.path / "summary.json").read_text()
    right = (predictions == labels).mean()
    assert f'"acc1": {right}' in text


def test_the_tally(whole):
    run, tallies = whole
    assert [t.done for t in tallies] == list(range(N + 1))
    assert {t.total for t in tallies} == {N} and {t.failed for t in tallies} == {0}
    assert tallies[0].evaluations == tallies[0].judged == 0
    assert tallies[-1].evaluations == N * 12
    right = run.rows["prediction"].to_numpy() == run.rows["label"].to_numpy()
    assert [t.correct for t in tallies[1:]] == np.cumsum(right).tolist()


# ---- the noise


@pytest.mark.parametrize(
    ("order", "indices"),
    [(range(N), [2, 7, 11]), (range(N - 1, -1, -1), None)],
    ids=["subset", "reversed"],
)
def test_a_row_depends_on_the_image_alone(whole, classifier, tmp_path, order, indices):
    path = tmp_path / "run"
    task = task_of(Made(order=order), indices)
    evaluate(task, classifier, path, save_errors=True)
    rows = read_run(path).rows
    expected = whole[0].rows.take([order[i] for i in task.indices])
    assert_same(rows, expected, but=("seconds", "index"))


def test_kept_latents_change_nothing_and_are_not_computed_again(
    whole, classifier, tmp_path, monkeypatch
):
    cache, calls = tmp_path / "cache", []
    latents = DiffusionModel.latents

    def counting(model, pixels):
        calls.append(len(pixels))
        return latents(model, pixels)

    monkeypatch.setattr(DiffusionModel, "latents", counting)
    for name, n_calls in (("one", 2), ("two", 2)):  # two batches, once
        path = tmp_path / name
        evaluate(task_of(Made()), classifier, path, save_errors=True, cache=cache)
        assert_same(read_run(path).rows, whole[0].rows)
        assert len(calls) == n_calls


# ---- images that fail


def test_a_broken_image_is_recorded_counted_and_tried_again(
    whole, classifier, tmp_path
):
    path, tallies = tmp_path / "run", []
    result = evaluate(
        task_of(Made(broken=[4, 9])),
        classifier,
        path,
        save_errors=True,
        progress=kept(tallies),
    )
    assert (result["images"], result["failed_images"]) == (N - 2, 2)
    assert (tallies[-1].done, tallies[-1].failed, tallies[-1].judged) == (12, 2, 10)
    rows = read_run(path).rows
    failed = {row["index"]: row for row in rows.to_pylist() if row["error"]}
    assert {i: row["error"] for i, row in failed.items()} == {
        i: f"image {i} is broken" for i in (4, 9)
    }
    assert failed[4]["prediction"] is None
    good = np.setdiff1d(np.arange(N), [4, 9])
    assert_same(rows.take(good), whole[0].rows.take(good))

    assert (path / "summary.json").exists()
    with pytest.raises(KeyboardInterrupt):
        evaluate(task_of(Made(stop=4)), classifier, path, save_errors=True)
    assert not (path / "summary.json").exists(), "images are missing again"

    tallies.clear()
    healing = Made(broken=[9])
    result = evaluate(
        task_of(healing),
        classifier,
        path,
        save_errors=True,
        progress=kept(tallies),
    )
    assert healing.read == [4, 9]
    assert [(t.done, t.failed) for t in tallies] == [(10, 0), (11, 0), (12, 1)]
    assert (result["images"], result["failed_images"]) == (N - 1, 1)
    evaluate(task_of(Made()), classifier, path, save_errors=True)
    assert_same(read_run(path).rows, whole[0].rows)


def test_a_run_whose_images_all_fail_ends(classifier, tmp_path):
    source = Made(broken=range(N))
    result = evaluate(task_of(source), classifier, tmp_path / "run")
    assert (result["images"], result["failed_images"]) == (0, N)
    assert result["metrics"]["acc1"] is None


def test_an_image_on_which_the_network_overflows_fails_alone(classifier, tmp_path):
    path = tmp_path / "run"
    task = task_of(Made(), [0, 1, 2])
    score = classifier.score

    def hot(images, *args):
        infinite = np.full_like(classifier.model.latent(black), np.inf)
        return score(
            (
                (row, dataclasses.replace(image, z0=infinite))
                if image.key == key_of("image 1")
                else (row, image)
                for row, image in images
            ),
            *args,
        )

    black = np.zeros((16, 16, 3), np.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "score", hot)
        result = evaluate(task, classifier, path)
    assert (result["images"], result["failed_images"]) == (2, 1)
    (row,) = (row for row in read_run(path).rows.to_pylist() if row["error"])
    assert (row["id"], row["label"]) == ("image 1", 1)
    assert "overflowed" in row["error"]


def test_an_overflow_that_does_not_decide_is_no_decision(class_classifier, tmp_path):
    """NaN in the variance channels: l2 decides as before, vlb knows nothing."""
    model = class_classifier.model
    module = nnx.clone(model.denoiser.module())
    kernel = np.array(module.proj_out_2.kernel)
    channels = kernel.reshape(len(kernel), -1, 2, 4)  # noise and variance of a patch
    channels[:, :, 1] = np.nan
    module.proj_out_2.kernel[...] = kernel
    broken = dataclasses.replace(model, denoiser=Network.of(module))
    task = task_of(Made(tuple(f"class {i}" for i in range(4))), [0, 1, 2])
    result = evaluate(
        task, DiffusionClassifier(broken, class_classifier.settings), tmp_path / "run"
    )
    assert (result["images"], result["failed_images"]) == (0, 3)
    assert result["metrics"]["acc1"] is None
    for row in read_run(tmp_path / "run").rows.to_pylist():
        assert row["prediction"] is None
        assert "The vlb error of class" in row["error"] and "nan" in row["error"]
    alone = dataclasses.replace(class_classifier.settings, also=())
    result = evaluate(task, DiffusionClassifier(broken, alone), tmp_path / "l2")
    assert (result["images"], result["failed_images"]) == (3, 0)


def test_what_fails_for_every_image_ends_the_run(classifier, tmp_path):
    greedy = variant(classifier, strategy=Exhaustive(n_samples=1001))
    with pytest.raises(DiffjaxError, match="1001 timesteps"):
        evaluate(task_of(Made()), greedy, tmp_path / "greedy")
    np.save(tmp_path / "noise.npy", np.zeros((3, 8, 8, 4), np.float32))
    four = Exhaustive(n_samples=4)
    noisy = variant(classifier, noise=str(tmp_path / "noise.npy"), strategy=four)
    with pytest.raises(DiffjaxError, match="holds 3 noises"):
        evaluate(task_of(Made()), noisy, tmp_path / "noisy")
    for name in ("greedy", "noisy"):
        assert not (tmp_path / name).exists()  # no run was begun
