"""A made-up family of two text encoders, from prompts to decisions, and its cache."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import several
import small

from diffjax.classify import candidates as candidates_module
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.data.kept import KeptArrays
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.evaluation.bench import subject_of
from diffjax.models.conditions import take
from diffjax.models.network import OnDemand
from diffjax.scoring.cost import tile_cost
from diffjax.scoring.grid import Tile, cell_errors
from diffjax.scoring.noise import SeededNoise
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.shortlist import Shortlist

LABELS = ["cat", "dog", "a ship", "frog", "horses"]
SAME = ["two cats", "red dogs", "ten frogs"]  # as many tokens each
S = 3


@pytest.fixture(scope="module")
def classifier():
    settings = Settings(strategy=Exhaustive(n_samples=S), cells=4)
    return DiffusionClassifier(several.model(), settings)


def variant(classifier, **settings):
    return DiffusionClassifier(
        classifier.model, dataclasses.replace(classifier.settings, **settings)
    )


def by_hand(prompts):
    """Conditions of prompts, one after the other."""
    first, second = (network.module() for network in several.encoders())
    rows = [
        several.combine(
            first(jnp.asarray(small.tokenize([prompt]).ids[0])),
            second(jnp.asarray(several.backwards([prompt]).ids[0])),
        )
        for prompt in prompts
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def assert_close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_conditions_are_what_the_encoders_say(classifier):
    found = classifier.candidates(LABELS, "{}").conditions
    assert_close(found, by_hand(LABELS))
    assert len(set(found.length.tolist())) > 2  # they differ in every leaf


def test_prompts_are_averaged_by_leaves_that_have_a_mean(classifier):
    mean = variant(classifier, merge="mean")
    texts = (*SAME, *[name[::-1] for name in SAME])
    prompts = Prompts(prompts=texts, classidx=(0, 1, 2) * 2, class_names=tuple(SAME))
    found = mean.candidates(prompts).conditions
    one, two = by_hand(texts[:3]), by_hand(texts[3:])
    np.testing.assert_allclose(
        found.states, (one.states + two.states) / 2, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        found.pooled, (one.pooled + two.pooled) / 2, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(found.mask, one.mask)
    np.testing.assert_array_equal(found.length, one.length)


def test_prompts_that_differ_in_other_leaves_are_not_averaged(classifier):
    mean = variant(classifier, merge="mean")
    with pytest.raises(DiffjaxError, match=r"'a b' and 'a bcd' cannot .*compete"):
        mean.candidates(["b", "c"], ["a {}", "a {}cd"])


def test_errors_are_those_of_a_plain_loop(classifier):
    [image] = small.images(1)
    candidates = classifier.candidates(LABELS, "{}")
    record = classifier.classify(image, candidates)
    encoded = classifier.encode(image)
    cell = jax.jit(cell_errors, static_argnames="losses")
    for c, condition in enumerate(take(by_hand(LABELS), c) for c in range(len(LABELS))):
        samples = zip(record.samples.timesteps, record.samples.noises, strict=True)
        for s, (t, k) in enumerate(samples):
            noise = SeededNoise.of(0).draw(
                jnp.uint32(encoded.key), jnp.int32(k), encoded.z0.shape
            )
            [expected] = cell(
                classifier.model.denoiser,
                classifier.model.schedule,
                encoded.z0,
                condition,
                jnp.int32(t),
                noise,
                losses=("l2",),
            )
            np.testing.assert_allclose(record.errors[c, s], expected, rtol=1e-4)


def test_a_shortlist_of_them(classifier):
    shortlist = Shortlist(k=2, n_samples=S, directions=2)
    ours = variant(classifier, shortlist=shortlist)
    candidates = ours.candidates(LABELS, "{}")
    record = ours.classify(small.images(1)[0], candidates)
    assert (record.decision.n_samples == S).sum() == 2
    assert ours.estimates(candidates).cost().flops > 0


def test_estimates_are_exact_where_labels_are_the_base(classifier):
    ours = variant(classifier, shortlist=Shortlist(k=2, n_samples=S), noise="shared")
    candidates = ours.candidates(LABELS, "{}")
    same = take(candidates.conditions, np.full(len(LABELS), 1))
    [image] = small.images(1)
    z0 = np.asarray(ours.model.latent(ours.pixels(image)))
    alike = dataclasses.replace(candidates, conditions=same)
    found = ours.estimates(alike).of(z0, key=1)
    everything = variant(ours, shortlist=None).classify(image, candidates)
    expected = np.tile(everything.errors[1], (len(LABELS), 1))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_memory_is_planned_for_all_leaves(classifier, monkeypatch):
    tokens, width = small.TOKENS, small.WIDTH
    row = 4 * tokens * width + 4 * width + tokens + 4
    monkeypatch.setattr(
        candidates_module, "free_bytes", lambda device: row * len(LABELS)
    )
    with pytest.warns(UserWarning, match="conditions of 5 prompts"):
        classifier.candidates(LABELS, "{}")
    monkeypatch.setattr(
        candidates_module, "free_bytes", lambda device: row * len(LABELS) - 1
    )
    with pytest.raises(DiffjaxError, match="fewer classes"):
        classifier.candidates(LABELS, "{}")


def test_tiles_of_them_are_timed(classifier):
    subject = subject_of(classifier.model)
    conditions = take(subject.conditions, np.zeros(2, int))
    tile = Tile(blocks=2, classes=2)
    cost = tile_cost(classifier.grid, tile, conditions, classifier.latent_shape)
    assert cost.flops > 0


# ---- the cache


def unread():
    raise AssertionError("a text encoder is read")


def cached(folder, networks=None):
    """The family with a cache; its encoders are known, and not there without weights.

    Of ``networks`` None stands for encoders that must not be read.
    """
    known = several.encoders()
    ours = several.conditioner(networks or known)
    if networks is None:
        for encoder, network in zip(ours.encoders.values(), known, strict=True):
            shapes = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), network
            )
            demand = OnDemand(unread, shapes, fingerprint=network.fingerprint)
            object.__setattr__(encoder, "network", demand)
    return dataclasses.replace(ours, kept=KeptArrays(folder, "prompts"))


def test_what_is_kept_needs_no_text_encoder(tmp_path):
    prompts = [f"{label} {i}" for i in range(8) for label in LABELS]  # two calls
    expected, cut = several.conditioner().encode(prompts)
    written, _ = cached(tmp_path, several.encoders()).encode(prompts)
    assert len(list(tmp_path.rglob("*.npz"))) == len(prompts)
    found, told = cached(tmp_path).encode(prompts)
    assert told == cut
    for ours, kept, theirs in zip(found, written, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(kept, theirs)
    rounded, _ = cached(tmp_path).encode(prompts, dtype=jnp.bfloat16)
    assert rounded.states.dtype == jnp.bfloat16
    with pytest.raises(AssertionError, match="is read"):
        cached(tmp_path).encode([*prompts, "something new"])


def test_other_encoders_keep_for_themselves(tmp_path):
    cached(tmp_path, several.encoders()).encode(["cat"])
    other = [several.clip(3), several.encoders()[1]]
    found, _ = cached(tmp_path, other).encode(["cat"])
    expected, _ = several.conditioner(other).encode(["cat"])
    np.testing.assert_array_equal(found.states, expected.states)
    assert len(list(tmp_path.rglob("*.npz"))) == 2


def test_damaged_conditions_are_computed_again_with_a_word(tmp_path):
    expected, _ = cached(tmp_path, several.encoders()).encode(["cat"])
    [path] = tmp_path.rglob("*.npz")
    content = bytearray(path.read_bytes())
    content[content.index(np.asarray(expected.states).tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{path.name} is damaged"):
        found, _ = cached(tmp_path, several.encoders()).encode(["cat"])
    np.testing.assert_array_equal(found.states, expected.states)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cached(tmp_path).encode(["cat"])
