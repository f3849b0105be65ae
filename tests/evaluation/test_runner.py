import dataclasses
import io
import zlib

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from flax import nnx
from PIL import Image
from rich.console import Console
from small import DIT, class_model, random, text_model, tokenize

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.search import Encoded
from diffjax.classify.settings import Settings
from diffjax.cli.tables import plan_table
from diffjax.data.prefilter import Prefilter
from diffjax.data.prompts import Prompts
from diffjax.data.sources import Example, Source
from diffjax.errors import DiffjaxError
from diffjax.evaluation.plan import make_plan
from diffjax.evaluation.provenance import VARIABLES, environment
from diffjax.evaluation.runner import Watch, evaluate
from diffjax.evaluation.task import make_task
from diffjax.models.diffusion import DiffusionModel, Network
from diffjax.models.dit import DiTTransformer2DModel
from diffjax.runs import folder
from diffjax.runs.folder import read_run
from diffjax.runs.sharing import Share
from diffjax.schedules import Schedule
from diffjax.scoring import grid
from diffjax.scoring.placement import block_mesh
from diffjax.strategies.base import ErrorTable, rank
from diffjax.strategies.base import run as run_strategy
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing
from diffjax.strategies.staged import Staged

N = 12  # images: more than a batch of the autoencoder
STAGED = Staged(to_keep=(2, 1), n_samples=(2, 4), order="nested")


class Made:
    """Images of noise; the class of image i is i mod C."""

    def __init__(self, names=("cat", "dog", "ship", "frog"), order=range(N), **kwargs):
        self.name, self.split, self.fingerprint = "made", "test", "f" * 16
        self.class_names = tuple(names)
        self.model_classes = kwargs.get("model_classes")
        self.broken = set(kwargs.get("broken", ()))
        self.stop = kwargs.get("stop")  # cannot be read, nor excused
        self.order = list(order)
        self.read = []

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        self.read.append(index)
        if index == self.stop:
            raise KeyboardInterrupt
        if index in self.broken:
            raise DiffjaxError(f"image {index} is broken")
        k = self.order[index]
        pixels = np.random.default_rng(k).integers(0, 256, (20, 16, 3), np.uint8)
        return Example(image=pixels, label=int(self.labels()[index]), id=f"image {k}")

    def __iter__(self):
        return map(self.__getitem__, range(len(self)))

    def labels(self):
        return np.asarray(self.order, np.int32) % len(self.class_names)


@pytest.fixture(scope="module")
def classifier():
    # two cells a tile: all rounds have tiles of one shape, compiled once
    return DiffusionClassifier(text_model(), Settings(strategy=STAGED, cells=2))


@pytest.fixture(scope="module")
def class_classifier():
    settings = Settings(strategy=STAGED, cells=2, also=("vlb", "l2+vlb"))
    return DiffusionClassifier(class_model(), settings)


def variant(classifier, **settings):
    return DiffusionClassifier(
        classifier.model, dataclasses.replace(classifier.settings, **settings)
    )


def task_of(source, indices=None, **kwargs):
    indices = np.arange(len(source)) if indices is None else np.asarray(indices)
    return make_task(source, indices, **kwargs)


@pytest.fixture(scope="module")
def whole(classifier, tmp_path_factory):
    """An undisturbed run over all images, with its tallies."""
    path, tallies = tmp_path_factory.mktemp("runs") / "whole", []
    evaluate(
        task_of(Made()),
        classifier,
        path,
        save_errors=True,
        watch=Watch(image=tallies.append),
    )
    return read_run(path), tallies


def assert_same(rows, others, but=("seconds",)):
    """Rows agree in every bit, but for some columns."""
    both = [table.drop_columns(list(but)).to_pylist() for table in (rows, others)]
    assert repr(both[0]) == repr(both[1])  # where NaN is NaN


def tables(rows, P):
    """Errors [n, P, S] of rows."""
    errors = np.array(rows["errors"].to_pylist(), np.float32)
    return errors.reshape(len(rows), P, -1)


def alone(classifier, example, candidates):
    """The record of an image that no other shares a tile with."""
    pixels = classifier.pixels(example.image)
    z0 = np.asarray(classifier.model.latent(pixels))
    image = Encoded(pixels=pixels, z0=z0, key=key_of(example.id))
    [(_, record)] = classifier.score([image], candidates)
    return record


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
        difference = table.difference(row["prediction"]).mean
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


# ---- interruptions


def test_an_interrupted_run_ends_as_an_undisturbed_one(whole, classifier, tmp_path):
    path, tallies = tmp_path / "run", []

    def interrupt(tally):
        if tally.done == 3:
            raise KeyboardInterrupt

    def go_on(source, watch):
        task = task_of(source)
        return evaluate(task, classifier, path, save_errors=True, watch=watch)

    with pytest.raises(KeyboardInterrupt):
        go_on(Made(), Watch(image=interrupt))
    assert len(read_run(path).rows) == 3
    assert not (path / "summary.json").exists()
    rows = read_run(path).rows.to_pylist()
    right = sum(row["prediction"] == row["label"] for row in rows)
    with pytest.raises(KeyboardInterrupt):
        go_on(Made(stop=11), Watch(image=tallies.append))
    done = read_run(path).rows["index"].to_pylist()
    assert 3 <= len(done) <= 11
    first = tallies[0]
    assert (first.done, first.correct, first.evaluations) == (3, right, 0)

    source = Made()
    result = go_on(source, Watch())
    assert sorted(source.read) == sorted(set(range(N)) - set(done))
    assert_same(read_run(path).rows, whole[0].rows)
    assert result["images"] == N
    parts = [pq.read_metadata(p).num_rows for p in (path / "parts").iterdir()]
    assert sum(parts) == N and 3 in parts  # nothing was done twice

    source = Made()  # and once more: nothing is left to do
    again = go_on(source, Watch())
    assert source.read == [] and again == result


def test_what_is_not_written_is_lost_and_nothing_else(classifier, tmp_path, whole):
    """A kill, of which ``flush`` and the end of the writer know nothing."""
    path = tmp_path / "run"

    class Killed(BaseException):
        pass

    def kill(tally):
        if tally.done == 5:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder.RunWriter, "__exit__", lambda run, *_: run._release())
        with pytest.raises(Killed):
            evaluate(
                task_of(Made()),
                classifier,
                path,
                save_errors=True,
                flush_seconds=0.0,
                watch=Watch(image=kill),
            )
    assert len(list((path / "parts").iterdir())) == 5
    evaluate(task_of(Made()), classifier, path, save_errors=True)
    assert_same(read_run(path).rows, whole[0].rows)


def test_one_device_goes_on_where_two_stopped(whole, classifier, tmp_path, monkeypatch):
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        evaluate(task_of(Made(stop=9)), classifier, path, save_errors=True)
    monkeypatch.setattr(
        "diffjax.classify.classifier.block_mesh", lambda: block_mesh(jax.devices()[:1])
    )
    alone = variant(classifier)
    assert alone.device.startswith("1 ×") and classifier.device.startswith("2 ×")
    evaluate(task_of(Made()), alone, path, save_errors=True)
    rows, others = read_run(path).rows, whole[0].rows
    for column in ("index", "id", "prediction", "ranking", "evaluations"):
        assert rows[column].equals(others[column])
    np.testing.assert_allclose(tables(rows, 4), tables(others, 4), rtol=1e-4)


def test_another_configuration_is_refused(classifier, tmp_path):
    path = tmp_path / "run"

    def refuse(line, classifier=classifier, indices=(0, 1), **kwargs):
        with pytest.raises(DiffjaxError, match=line):
            evaluate(task_of(Made(), indices), classifier, path, **kwargs)

    evaluate(task_of(Made(), [0, 1]), classifier, path, asked={"limit": 2})
    refuse("experiment.limit: 2 there, 3 here", asked={"limit": 3})
    refuse("experiment.loss: l2 there, l1 here", variant(classifier, loss="l1"))
    refuse("data.indices", indices=[0, 2])
    refuse("experiment.save_errors: false there", save_errors=True)
    scaled = jax.tree.map(lambda x: 2 * x, classifier.model.denoiser.state)
    other = dataclasses.replace(
        classifier.model, denoiser=Network(classifier.model.denoiser.graphdef, scaled)
    )
    refuse("model.weights", DiffusionClassifier(other, classifier.settings))
    model, betas = classifier.model, classifier.model.schedule.alpha_bar
    steeper = Schedule.of(np.asarray(betas, np.float64) ** 1.01)
    for line, changes in {
        "model.schedule: ": {"schedule": steeper},
        "model.prediction_type: epsilon there, v_": {
            "schedule": dataclasses.replace(
                model.schedule, prediction_type="v_prediction"
            )
        },
        "model.scaling_factor: 0.5 there, 0.25 here": {"scaling_factor": 0.25},
        "model.ids: ": {"tokenize": lambda prompts: tokenize([*prompts][::-1])},
        "model.configs.vae: null there": {"configs": {"vae": {"norm_eps": 1}}},
    }.items():
        changed = dataclasses.replace(model, **changes)
        refuse(line, DiffusionClassifier(changed, classifier.settings))
    renamed = dataclasses.replace(model, name="a copy", origin={"model": "elsewhere"})
    moved = DiffusionClassifier(renamed, classifier.settings)
    evaluate(task_of(Made(), [0, 1]), moved, path, asked={"limit": 2})
    half = dataclasses.replace(
        classifier.model, origin=classifier.model.origin | {"dtype": "bfloat16"}
    )
    refuse(
        "model.dtype: .*, bfloat16 here", DiffusionClassifier(half, classifier.settings)
    )
    # what changes the speed alone may change
    faster = variant(classifier, cells=7)
    evaluate(task_of(Made(), [0, 1]), faster, path, asked={"limit": 2})


def test_a_class_by_another_number_is_another_model(class_classifier, tmp_path):
    task = task_of(Made(("class 1", "class 2", "class 3")), [0, 1])
    plain = dataclasses.replace(class_classifier.settings, also=())
    classifier = DiffusionClassifier(class_classifier.model, plain)
    evaluate(task, classifier, tmp_path / "run")
    names = tuple(reversed(classifier.model.class_names))
    other = dataclasses.replace(classifier.model, class_names=names)
    with pytest.raises(DiffjaxError, match=r"model\.ids"):
        evaluate(task, DiffusionClassifier(other, plain), tmp_path / "run")


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
        watch=Watch(image=tallies.append),
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
        watch=Watch(image=tallies.append),
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
                dataclasses.replace(image, z0=infinite)
                if image.key == key_of("image 1")
                else image
                for image in images
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


def test_damage_in_saved_errors_is_repaired_by_the_same_command(
    whole, classifier, tmp_path, monkeypatch
):
    path = tmp_path / "run"
    plain = pq.write_table
    monkeypatch.setattr(
        pq, "write_table", lambda *a, **kw: plain(*a, **kw | {"compression": "none"})
    )
    evaluate(task_of(Made(), range(6)), classifier, path, save_errors=True)
    [part] = (path / "parts").iterdir()
    errors = np.asarray(read_run(path).rows["errors"][2].as_py(), np.float32).tobytes()
    content = bytearray(part.read_bytes())
    content[content.index(errors[:16]) + 2] ^= 1
    part.write_bytes(content)
    source = Made()
    with pytest.warns(UserWarning, match="damaged"):
        evaluate(task_of(source, range(6)), classifier, path, save_errors=True)
    assert sorted(source.read) == list(range(6))
    rows = read_run(path).rows
    assert_same(rows, whole[0].rows.take(list(range(6))))


def key_of(name):
    return zlib.crc32(name.encode())


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


def class_source(**kwargs):
    """Ten classes in another order than the model's."""
    names = [f"class {9 - c}" for c in range(10)]
    return Made(names, **kwargs)


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


# ---- several processes


def test_processes_share_a_run(whole, classifier, tmp_path):
    path, tallies = tmp_path / "run", []
    task = task_of(Made())

    def part(index, count, **kwargs):
        share = Share(index, count)
        return evaluate(task, classifier, path, save_errors=True, share=share, **kwargs)

    result = part(0, 2, watch=Watch(image=tallies.append))
    assert result["images"] == N / 2
    assert [t.total for t in tallies] == [N / 2] * (N // 2 + 1)
    assert not (path / "summary.json").exists()
    part(1, 3)  # another number of processes: nothing is done twice
    everything = part(0, 1)
    assert everything["images"] == N and (path / "summary.json").exists()
    assert_same(read_run(path).rows, whole[0].rows)
    parts = [pq.read_metadata(p).num_rows for p in (path / "parts").iterdir()]
    assert sum(parts) == N


# ---- prefilters


def test_a_prefilter_leaves_the_rest_unevaluated(whole, classifier, tmp_path):
    left = {f"image {k}": (k % 4, 3) for k in range(N) if k != 5}

    def choose(name, pixels):
        if name not in left:
            raise DiffjaxError(f"{name} is unknown")
        return left[name]

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
    prefilter = Prefilter(name="clip", choose=lambda name, pixels: classes)
    with pytest.raises(DiffjaxError, match=match):
        task_of(Made(), prefilter=prefilter).among("a", np.zeros((2, 2, 3)))


def test_a_function_leaves_labels_of_one_image(classifier):
    labels = ["cat", "dog", "ship"]
    record = classifier.classify(
        Made()[0].image, labels, prefilter=lambda pixels: np.array([2, 0])
    )
    assert record.among == (2, 0) and record.decision.n_samples[1] == 0
    assert record.as_dict()["among"] == ["ship", "cat"]


# ---- the plan


def test_a_plan_is_what_a_run_then_does(whole, classifier, monkeypatch, tmp_path):
    task = task_of(Made())
    plan = make_plan(task, classifier)
    assert (plan.images, plan.classes, plan.prompts) == (N, 4, 4)
    assert set(whole[0].rows["evaluations"].to_pylist()) == {plan.evaluations_per_image}
    assert plan.fewest_evaluations_per_image == plan.evaluations_per_image
    assert plan.evaluations == N * plan.evaluations_per_image
    assert plan.flops_per_image > 1e6 and plan.seconds_per_image > 0
    assert plan.flops == N * plan.flops_per_image
    assert plan.seconds == N * plan.seconds_per_image
    assert plan.device == classifier.device
    cells = []

    def counting(*args, **kwargs):
        errors = tile_errors(*args, **kwargs)
        cells.append(errors[0].size)
        return errors

    tile_errors = grid.tile_errors
    monkeypatch.setattr(grid, "tile_errors", counting)
    evaluate(task_of(Made(), [0]), classifier, tmp_path / "run")
    assert sum(cells) == plan.passes_per_image


def test_a_plan_counts_what_fills_up_the_tiles(classifier):
    strategy = Staged(to_keep=(3, 1), n_samples=(1, 3))
    odd = variant(classifier, strategy=strategy, cells=16)
    plan = make_plan(task_of(Made()), odd)
    # three classes are a row of four
    assert (plan.evaluations_per_image, plan.passes_per_image) == (4 + 6, 4 + 8)
    narrow = make_plan(task_of(Made()), variant(odd, cells=2))  # of one class each
    assert narrow.passes_per_image == narrow.evaluations_per_image == 4 + 6


def test_a_plan_of_a_race_says_what_it_needs_at_least_and_at_most(classifier):
    race = variant(classifier, strategy=Racing(n_samples=8, floor=3, chunk=2))
    plan = make_plan(task_of(Made()), race)
    assert (plan.fewest_evaluations_per_image, plan.evaluations_per_image) == (12, 32)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan_table(plan))
    assert "an image, at most" in (text := console.export_text())
    assert "An image needs 12 evaluations or more" in text


def test_a_plan_of_a_class_model_takes_its_classes(class_classifier):
    plan = make_plan(task_of(class_source(), [0]), class_classifier)
    assert (plan.classes, plan.evaluations_per_image) == (10, 10 * 2 + 2 * 2)


def test_variables_that_round_otherwise_are_in_the_header(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not set(VARIABLES) & set(environment("a device"))
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert environment("a device")["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=true"
