import dataclasses
import inspect
import io
import json
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from PIL import Image
from small import (
    class_model,
    conditioner,
    glance,
    images,
    text_denoiser,
    text_model,
    tokenize,
)

from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.parts import Parts
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.classify.seen import Encoded
from diffjax.classify.settings import Options, Settings, settings_from
from diffjax.data.labels import class_ids
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError, NotFiniteError
from diffjax.models.conditions import count
from diffjax.models.network import Network
from diffjax.strategies import parse_strategy
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.staged import Staged

LABELS = ["cat", "dog", "ship", "frog", "horse"]
EXHAUSTIVE = Exhaustive(n_samples=6)


@pytest.fixture(scope="module")
def model():
    return text_model(denoiser=glance())


@pytest.fixture(scope="module")
def classifier(model):
    return DiffusionClassifier(model, Settings(strategy=EXHAUSTIVE, cells=12))


def variant(classifier, **settings):
    return DiffusionClassifier(
        classifier.model, dataclasses.replace(classifier.settings, **settings)
    )


def test_keywords_are_said_once_and_known_to_all():
    fields = {field.name for field in dataclasses.fields(Settings)}
    options = {*Parts.__annotations__, *fields, "budget"}  # a setting of a strategy
    assert set(Options.__annotations__) == options
    for function, known in (
        (load_model, Parts),
        (DiffusionClassifier.from_pretrained, Options),
    ):
        shown = inspect.signature(function).parameters
        assert [*shown] == ["name_or_path", "dtype", *known.__annotations__]
        with pytest.raises(TypeError, match="unexpected keyword argument 'unett'"):
            function("tiny", unett="somewhere")
    for name in Parts.__annotations__:  # what is documented is what there is
        assert f"\n    {name}: " in inspect.getdoc(Parts)  # 3.13 takes indents away


def test_the_call_returns_what_the_pipelines_return(classifier):
    [one, two] = images(2)
    scores = classifier(one, candidate_labels=LABELS)
    assert [set(entry) for entry in scores] == [{"score", "label"}] * 5
    assert {entry["label"] for entry in scores} == set(LABELS)
    values = [entry["score"] for entry in scores]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1)
    assert classifier([one, two], candidate_labels=LABELS)[0] == scores
    assert classifier(jnp.asarray(one), candidate_labels=LABELS) == scores
    assert classifier([two], candidate_labels=", ".join(LABELS))[0] == classifier(
        Image.fromarray(two), candidate_labels=LABELS
    )


def test_the_record_is_the_grid(classifier):
    [image] = images(1)
    record = classifier.classify(image, LABELS)
    assert record.errors.shape == (5, 6)
    assert record.evaluations == 30
    assert record.label == LABELS[int(record.errors.mean(axis=1).argmin())]
    timesteps, means = record.by_timestep()
    np.testing.assert_array_equal(timesteps, np.sort(record.samples.timesteps))
    np.testing.assert_allclose(means, record.errors, rtol=1e-6)
    text = json.loads(json.dumps(record.as_dict()))
    winner = LABELS.index(record.label)
    assert text["errors"][winner]["label"] == record.label
    assert text["errors"][winner]["by_timestep"] == pytest.approx(
        [float(e) for e in record.errors[winner]]
    )
    assert text["settings"]["strategy"]["name"] == "exhaustive"
    assert text["calibrated"] is record.calibrated is False


@pytest.mark.parametrize("cells", [1, 3, 6])
def test_an_answer_does_not_depend_on_the_width_of_tiles(classifier, cells):
    [image] = images(1)
    narrow = variant(classifier, cells=cells)
    errors = narrow.classify(image, LABELS).errors
    wide = classifier.classify(image, LABELS).errors
    np.testing.assert_allclose(errors, wide, rtol=1e-5)
    devices = narrow.grid.devices
    assert narrow.work.passes <= narrow.work.tiles * max(cells, devices)


def test_an_answer_does_not_depend_on_other_images_or_labels(classifier):
    some = images(3)
    alone = classifier.classify(some[2], LABELS)
    again = [classifier.classify(image, LABELS[::-1]) for image in some][2]
    np.testing.assert_allclose(alone.errors, again.errors[::-1], rtol=1e-5)


def test_noise_per_image_or_shared(classifier):
    one, two = images(2)
    image = classifier.pixels(one)
    assert not np.allclose(classifier.pixels(two), image)
    candidates = classifier.candidates(LABELS)
    z0 = np.asarray(classifier.model.latent(image))

    def errors(classifier, key):
        encoded = Encoded(pixels=image, z0=z0, key=key)
        [(_, record)] = classifier.score([("", encoded)], candidates)
        return record.errors

    np.testing.assert_array_equal(errors(classifier, 7), errors(classifier, 7))
    assert np.abs(errors(classifier, 7) - errors(classifier, 8)).max() > 1e-4
    shared = variant(classifier, noise="shared")
    np.testing.assert_array_equal(errors(shared, 7), errors(shared, 8))
    other = variant(classifier, seed=1)
    a, b = (c.classify(one, LABELS).errors for c in (classifier, other))
    assert np.abs(a - b).max() > 1e-4


def test_noise_from_a_file(classifier, tmp_path):
    path = tmp_path / "noise.npy"
    table = np.random.default_rng(0).standard_normal((6, 4, 8, 8)).astype(np.float32)
    np.save(path, table)
    [image] = images(1)
    from_file = variant(classifier, noise=str(path))
    record = from_file.classify(image, LABELS)
    assert np.isfinite(record.errors).all()
    np.save(path, table[:5])
    with pytest.raises(DiffjaxError, match=r"holds 5 noises"):
        variant(classifier, noise=str(path)).classify(image, LABELS)


def test_pruned_classes_say_so(model):
    strategy = Staged(to_keep=(2, 1), n_samples=(3, 9), order="nested")
    classifier = DiffusionClassifier(model, Settings(strategy=strategy, cells=12))
    record = classifier.classify(images(1)[0], LABELS)
    scores = record.scores()
    assert record.evaluations == 5 * 3 + 2 * 6
    assert [entry.get("pruned", False) for entry in scores] == [False] * 2 + [True] * 3
    assert [entry.get("n_samples") for entry in scores] == [None] * 2 + [3] * 3
    values = [entry["score"] for entry in scores]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1)


def test_progress_counts_down(model):
    strategy = Staged(to_keep=(2, 1), n_samples=(3, 9), order="nested")
    classifier = DiffusionClassifier(model, Settings(strategy=strategy, cells=12))
    seen = []

    def watch(now):
        seen.append((now.evaluations, now.remaining, now.alive, now.done))

    progress = Progress(watch=watch)
    record = classifier.classify(images(1)[0], LABELS, progress=progress)
    *during, last = seen
    assert last == (record.evaluations, 0, 0, 1)
    assert [done for done, *_ in during] == sorted(done for done, *_ in during)
    assert {alive for _, _, alive, _ in during} == {5, 2}
    assert {done + left for done, left, *_ in during} == {record.evaluations}
    assert during[-1][1] == 0


@pytest.mark.parametrize(
    "strategy", ["staged:to_keep=2,1:n_samples=3,9", "racing:n_samples=40"]
)
def test_several_images_fill_tiles_together(model, strategy):
    settings = Settings(strategy=parse_strategy(strategy), cells=24)
    alone, together = (DiffusionClassifier(model, settings) for _ in range(2))
    candidates = alone.candidates(LABELS)
    expected = [alone.classify(image, candidates) for image in images(7)]
    opened = []

    def read():
        for k, image in enumerate(images(7)):
            opened.append(k)
            yield image

    progress = Progress(total=7)
    records = together.classify(read(), candidates, progress=progress)
    assert opened == list(range(7)) and (progress.done, progress.open) == (7, set())
    assert progress.evaluations == sum(record.evaluations for record in records)
    assert together.work.tiles < alone.work.tiles
    for one, record in zip(expected, records, strict=True):
        np.testing.assert_array_equal(record.decision.ranking, one.decision.ranking)
        assert record.evaluations == one.evaluations
        np.testing.assert_allclose(record.table.errors, one.table.errors, rtol=1e-5)
    scores = together(images(7), LABELS)
    assert [entries[0]["label"] for entries in scores] == [r.label for r in expected]


@pytest.mark.parametrize(
    "odd", [None, 3, io.BytesIO(b"abc"), bytearray(b"abc"), {"a": "a.png"}]
)
def test_what_is_no_image_is_not_taken_for_several(classifier, odd, monkeypatch):
    # as where arguments are not checked
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    kind = type(odd).__name__
    for call in (classifier.classify, classifier):
        with pytest.raises(DiffjaxError, match=f"Cannot read an image from a {kind}"):
            call(odd, LABELS)


def test_images_that_fail_do_not_lose_the_others(classifier):
    read = dict(zip("abc", map(classifier.encode, images(3)), strict=True))
    hot = dataclasses.replace(read["b"], z0=np.full_like(read["b"].z0, np.nan))
    candidates = classifier.candidates(LABELS)
    given = read | {"b": hot, "missing": DiffjaxError("no such image")}
    found = dict(classifier.score(given.items(), candidates))
    assert set(found) == set(given)
    assert found["missing"] is given["missing"]
    assert isinstance(found["b"], NotFiniteError)
    alone = dict(classifier.score([("c", read["c"])], candidates))
    np.testing.assert_allclose(found["c"].errors, alone["c"].errors, rtol=1e-5)
    with pytest.raises(DiffjaxError, match="There is no image nope"):
        classifier.classify([images(1)[0], "nope.png"], candidates)


def test_prompts_compete(classifier):
    [image] = images(1)
    prompts = Prompts.from_labels(LABELS, ["a photo of a {}.", "one {}"])
    record = classifier.classify(image, prompts)
    assert record.table.errors.shape == (10, 6)
    means = record.table.errors.mean(axis=1)
    assert record.label == LABELS[int(means.argmin()) // 2]
    best = means.reshape(5, 2).argmin(axis=1) + 2 * np.arange(5)
    np.testing.assert_array_equal(record.errors, record.table.errors[best])


def test_mean_of_text_states(classifier):
    mean = variant(classifier, merge="mean")
    templates = ["a photo of a {}.", "one {}"]
    candidates = mean.candidates(LABELS, templates)
    assert count(candidates.conditions) == 5
    each = [classifier.candidates(LABELS, t).conditions.states for t in templates]
    np.testing.assert_allclose(
        candidates.conditions.states, (each[0] + each[1]) / 2, rtol=1e-5, atol=1e-6
    )
    assert mean.classify(images(1)[0], candidates).table.errors.shape == (5, 6)


def test_class_conditional_models():
    classifier = DiffusionClassifier(
        class_model(), Settings(strategy=EXHAUSTIVE, cells=12)
    )
    [image] = images(1)
    every = classifier.classify(image)
    assert every.errors.shape == (10, 6)
    some = classifier.classify(image, ["c7", "class 2", "5"])
    np.testing.assert_allclose(some.errors, every.errors[[7, 2, 5]], rtol=1e-5)
    with pytest.raises(DiffjaxError, match="does not know the class 'zebra'"):
        classifier.classify(image, ["zebra", "c7"])
    with pytest.warns(UserWarning, match="prompts are not used"):
        classifier.candidates(["c1", "c2"], "one {}")
    with pytest.raises(DiffjaxError, match="multiple of 4"):
        DiffusionClassifier(classifier.model, Settings(resolution=6))


def test_class_ids():
    names = ("tench, Tinca tinca", "crane", "cat", "crane")
    assert class_ids(["Tinca tinca", "2"], names, 4) == (0, 2)
    assert class_ids(["tench, tinca tinca", "3"], names, 4) == (0, 3)
    assert class_ids(["0", "1"], ("1", "0"), 2) == (1, 0)  # names win
    for labels, message in [
        (["crane", "cat"], "name of classes 1, 3"),
        (["tench", "0"], "Several labels mean class 0"),
        (["cat", "4"], "does not know the class '4'"),
    ]:
        with pytest.raises(DiffjaxError, match=message):
            class_ids(labels, names, 4)
    with pytest.raises(DiffjaxError, match="names no classes"):
        class_ids(["cat", "dog"], None, 4)


def test_overflow_is_an_error_with_a_remedy(model):
    huge = jax.tree.map(lambda x: x * jnp.inf, model.denoiser.state)
    broken = dataclasses.replace(model, denoiser=Network(model.denoiser.graphdef, huge))
    classifier = DiffusionClassifier(broken, Settings(strategy=EXHAUSTIVE, cells=12))
    with pytest.raises(DiffjaxError, match=r"timestep .* float32 or bfloat16"):
        classifier.classify(images(1)[0], LABELS)


def test_float16_overflows_where_bfloat16_does_not(model):
    def classify(dtype):
        denoiser = text_denoiser(dtype=dtype, param_dtype=dtype)
        # a first layer whose outputs leave float16's range, 65504, and no other's
        state = denoiser.state
        state["conv_in"]["bias"] = jax.tree.map(
            lambda x: x + jnp.asarray(60000, x.dtype), state["conv_in"]["bias"]
        )
        state["conv_in"]["kernel"] = jax.tree.map(
            lambda x: x * jnp.asarray(10000, x.dtype), state["conv_in"]["kernel"]
        )
        changed = dataclasses.replace(model, denoiser=Network(denoiser.graphdef, state))
        settings = Settings(strategy=EXHAUSTIVE, cells=12)
        return DiffusionClassifier(changed, settings).classify(images(1)[0], LABELS)

    with pytest.raises(DiffjaxError, match="bfloat16, not float16"):
        classify(jnp.float16)
    record = classify(jnp.bfloat16)
    assert record.errors.dtype == np.float32
    assert np.isfinite(record.errors).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "l3"}, "no loss 'l3'"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": float("nan")}, "above 0"),
        ({"temperature": float("inf")}, "finite"),
        ({"merge": "vote"}, "choose one of compete, mean"),
        ({"transform": "warp"}, "choose one of resize_crop, adm"),
        ({"interpolation": "cubic"}, "choose one of nearest"),
        ({"seed": -1}, "must be in"),
        ({"seed": 2**32}, "must be in"),
        ({"cells": 0}, "at least 1"),
        ({"resolution": 0}, "at least 1"),
        ({"noise": "absent.npy"}, "There is no noise file"),
        ({"resolution": 15}, "multiple of 2"),
    ],
)
def test_bad_settings(model, settings, message):
    with pytest.raises(DiffjaxError, match=message):
        DiffusionClassifier(model, Settings(**settings)).classify(images(1)[0], LABELS)


@pytest.mark.parametrize(
    ("labels", "template", "message"),
    [
        ([], "a {}", "No labels"),
        (["cat"], "a {}", "Only one label"),
        (["cat", "cat"], "a {}", "more than once"),
        (["cat", "dog"], "a photo", "exactly once"),
        (None, "a {}", "needs labels"),
    ],
)
def test_bad_labels(classifier, labels, template, message):
    with pytest.raises(DiffjaxError, match=message):
        classifier.classify(images(1)[0], labels, template)


def test_many_prompts_tell_of_their_memory_before_they_are_encoded(
    classifier, monkeypatch
):
    """Text states of the small model: 6 × 8 numbers of 4 bytes a prompt."""
    monkeypatch.setattr("diffjax.classify.candidates.free_bytes", lambda device: 10_000)
    few, many, too_many = ([f"thing {i}" for i in range(n)] for n in (5, 40, 60))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier.candidates(few)
        averaged = variant(classifier, merge="mean")
        averaged.candidates(few, [f"{{}} {i}" for i in range(30)])
    with pytest.warns(
        UserWarning, match=r"conditions of 40 prompts take 0\.0 GB of the"
    ):
        classifier.candidates(many)
    with pytest.raises(DiffjaxError, match=r"The conditions of 60 .* fewer classes"):
        classifier.candidates(too_many)


def test_labels_that_are_the_same_tokens_are_told_of(model):
    def lowered(prompts):  # as CLIP's tokenizer
        return tokenize([prompt.lower() for prompt in prompts])

    clip = DiffusionClassifier(
        dataclasses.replace(model, conditioner=conditioner(lowered))
    )
    with pytest.warns(UserWarning, match=r"'.* ship\.' and '.* Ship\.' .* told apart"):
        clip.candidates(["cat", "ship", "Ship"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.candidates(LABELS, ["a {}", "A {}"])  # of one class


def test_labels_of_other_types(classifier):
    [image] = images(1)
    texts = classifier.classify(image, ["3", "12"])
    for labels in ([3, 12], np.array([3, 12]), np.array(["3", "12"])):
        assert (
            classifier.classify(image, labels).as_dict()["scores"]
            == (texts.as_dict()["scores"])
        )
    scores = classifier(image, '"ship, boat",truck')
    assert {entry["label"] for entry in scores} == {"ship, boat", "truck"}
    with pytest.raises(DiffjaxError, match="text or a whole number"):
        classifier.classify(image, [1.5, 2.5])


def test_truncated_prompts_are_reported(classifier):
    long = "x" * 500
    with pytest.warns(UserWarning, match=r"1 of 2 prompts are too long .* 'a photo"):
        candidates = classifier.candidates(["cat", long])
    assert candidates.truncated == (f"a photo of a {long}.",)
    record = classifier.classify(images(1)[0], candidates)
    cut = [entry.get("truncated") for entry in record.as_dict()["prompts"]]
    assert cut == [None, True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert classifier.candidates(["cat", "dog"]).truncated == ()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"strategy": "racig"}, "Did you mean 'racing'"),
        ({"strategy": "racing:confidense=0.9"}, "Did you mean 'confidence'"),
        ({"shortlist": "k=5:n_sample=8"}, "Did you mean 'n_samples'"),
        ({"strategy": 3}, "strategy is 3; it must be a strategy"),
        ({"shortlist": 5}, r"Shortlist\(k=50\)"),
        ({"seed": "1"}, "seed is '1'; it must be a whole number"),
        ({"seed": True}, "seed is True"),
        ({"cells": 8.0}, "cells is 8.0"),
        ({"resolution": 33.3}, "resolution is 33.3"),
        ({"also": "l1"}, "also is 'l1'; it must be a tuple"),
        ({"temperature": [1]}, "temperature is"),
        ({"transform": "adn"}, "Did you mean 'adm'"),
        ({"noise": 3}, '"shared" or a path'),
    ],
)
def test_a_wrong_setting_is_one_line(given, words):
    with pytest.raises(DiffjaxError, match=words) as caught:
        settings_from(given, "tiny")
    assert "\n" not in str(caught.value)


def test_lists_and_paths_and_none_are_understood():
    given = {"also": ["l1"], "noise": Path("a.npy"), "seed": np.int64(3), "cells": None}
    settings = settings_from(given, "tiny")
    assert (settings.also, settings.noise, settings.seed) == (("l1",), "a.npy", 3)
    assert settings.cells is None
