"""Heads on made features, whose best accuracy is known."""

from dataclasses import replace

import numpy as np
import pytest

from diffjax.baselines import feature_heads as heads
from diffjax.baselines.feature_heads import held_out, moments, train_head
from diffjax.errors import DiffjaxError


class Made:
    """Maps in memory."""

    def __init__(self, rows):
        self.rows = rows.astype(np.float32)
        self.shape = rows.shape[1:]

    def __len__(self):
        return len(self.rows)

    def take(self, images):
        return self.rows[images]


def made(n, *, edge=1, seed=0, telling=True, scale=1.0):
    """Three classes, that one feature each points to; or that nothing does."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    rows = random.normal(size=(n, edge, edge, 6))
    if telling:
        rows[np.arange(n), :, :, labels] += 3
    return Made(1000 + scale * rows), labels


def accuracy(head, maps, labels):
    return np.mean(head.log_probabilities(maps).argmax(1) == labels)


def test_a_linear_head_learns_what_there_is_and_no_more():
    maps, labels = made(300)
    head = train_head("linear", maps, labels, 3, epochs=15)
    assert accuracy(head, *made(500, seed=1)) > 0.93
    odds = head.log_probabilities(maps)
    np.testing.assert_allclose(np.exp(odds).sum(1), 1, rtol=1e-5)
    assert head.learned + head.held == 300 and 0 < head.right <= head.held
    # features of another size are the same features
    other = train_head("linear", *made(300, scale=1e-2), 3, epochs=15)
    np.testing.assert_allclose(other.surprise, head.surprise, atol=0.02)
    # labels that nothing points to are learned by heart, and not beyond
    nothing, free = made(300, telling=False)
    blind = train_head("linear", nothing, free, 3, epochs=15)
    assert blind.surprise < 1.02 * np.log(3)
    assert accuracy(blind, *made(900, seed=1, telling=False)) < 0.4


def test_the_seed_decides_all_that_is_random():
    maps, labels = made(120)
    first, again, other = (
        train_head("linear", maps, labels, 3, epochs=3, seed=seed) for seed in (1, 1, 2)
    )
    assert (first.surprise, first.epoch) == (again.surprise, again.epoch)
    odds = [each.log_probabilities(maps) for each in (first, again, other)]
    np.testing.assert_array_equal(odds[0], odds[1])
    assert not np.allclose(odds[0], odds[2])


def test_the_resnet_sees_where_features_are(monkeypatch):
    """Patterns whose means are alike, which a head of means cannot tell apart."""
    monkeypatch.setattr(heads, "WIDTHS", (8,))  # compiles in a second
    faster = replace(heads.COURSES["resnet"], rate=0.01)
    monkeypatch.setitem(heads.COURSES, "resnet", faster)
    random = np.random.default_rng(0)
    rows, labels = random.normal(size=(240, 4, 4, 4)), random.integers(0, 2, 240)
    stripes = np.tile([1, -1], (4, 2))
    either = np.where(labels[:, None, None], stripes, stripes.T)
    rows[..., 0] = 3 * random.choice([-1, 1], (240, 1, 1)) * either
    maps = Made(rows)
    seen = train_head("resnet", maps, labels, 2, epochs=15)
    assert accuracy(seen, maps, labels) > 0.95
    assert accuracy(train_head("linear", maps, labels, 2, epochs=3), maps, labels) < 0.7


def test_images_held_out_are_of_every_class_and_are_not_learned_from():
    labels = np.repeat([0, 1, 2], [2, 30, 100])
    taught, held = held_out(labels, 0.1, seed=0)
    assert sorted([*taught, *held]) == list(range(132))
    assert np.bincount(labels[held]).tolist() == [1, 3, 10]
    assert not np.array_equal(held, held_out(labels, 0.1, seed=1)[1])
    maps, labels = made(100)
    taught, held = held_out(labels, 0.2, seed=0)
    maps.rows[held] = np.nan  # of these nothing is normalised by
    assert np.isfinite(moments(maps, taught)).all()
    with pytest.raises(DiffjaxError, match="became nan"):  # but by these is chosen
        train_head("linear", maps, labels, 3, share=0.2, epochs=1)
    with pytest.raises(DiffjaxError, match="Class 4 has one training image"):
        held_out(np.array([0, 0, 4]), 0.1, seed=0)
