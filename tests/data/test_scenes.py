"""Composed scenes."""

from itertools import combinations, product

import numpy as np
import pytest

from diffjax.data.drawing import COLOURS, SHAPES, TEXTURES
from diffjax.data.scenes import (
    MAX_WORDS,
    OPPOSITE,
    RADII,
    WORDINGS,
    Description,
    Phrase,
    Thing,
    draw_scene,
    is_held_out,
    scene,
    scenes,
)
from diffjax.errors import DiffjaxError

N = 1500


@pytest.fixture(scope="module")
def trained():
    return [scene(0, index) for index in range(N)]


@pytest.fixture(scope="module")
def held_out():
    return [scene(0, index, "heldout") for index in range(100)]


def phrase(colour, shape, size="large", texture="plain"):
    thing = Thing(shape=shape, colour=colour, texture=texture, size=size)
    return Phrase(thing=thing, size=False, texture=False)


def described(first, relation, second):
    return Description(first=first, second=second, relation=relation)


def test_pure_function_of_seed_index_and_split(trained):
    images, captions = scenes(5, 0)
    for index in (4, 0):
        again = scene(0, index)
        np.testing.assert_array_equal(again.image, images[index])
        np.testing.assert_array_equal(trained[index].image, images[index])
        assert again.caption == captions[index] == trained[index].caption
        assert again.description == trained[index].description
    others = [scene(1, 0), scene(0, 1), scene(0, 0, "heldout")]
    assert all(not np.array_equal(each.image, images[0]) for each in others)


def test_training_sees_everything_but_the_held_out(trained):
    names = {each.description.combination for each in trained} - {None}
    assert len(names) > 300
    assert not any(map(is_held_out, names))
    things = [thing for each in trained for thing in each.description.things]
    assert {thing.kind for thing in things} == set(product(COLOURS, SHAPES))
    assert {thing.texture for thing in things} == set(TEXTURES)
    assert {thing.size for thing in things} == set(RADII)
    assert {each.description.relation for each in trained} == {None, *WORDINGS}
    # each kind in each relation to something
    seen = {
        (each.description.first.thing.kind, each.description.relation)
        for each in (scene(1, index) for index in range(2 * N))
    }
    assert seen >= set(product(product(COLOURS, SHAPES), WORDINGS))


def test_the_held_out_split_is_of_held_out_combinations(held_out):
    names = {each.description.combination for each in held_out}
    assert all(map(is_held_out, names))
    assert len(names) > 30


def test_an_eighth_is_held_out_on_both_axes():
    for axis in ("side", "above"):
        names = [
            " ".join((axis, *colours, *shapes))
            for colours in combinations(sorted(COLOURS), 2)
            for shapes in combinations(sorted(SHAPES), 2)
        ]
        assert 1 / 12 < np.mean([is_held_out(name) for name in names]) < 1 / 6


def test_other_words_for_a_combination_are_the_same_combination():
    a, b = phrase("red", "circle"), phrase("blue", "square", "small", "dotted")
    first = described(a, "left", b)
    turned = described(b, "right", a)
    assert first.things == turned.things
    colours = described(phrase("blue", "circle"), "left", phrase("red", "square"))
    for other in (turned, described(b, "left", a), described(a, "right", b), colours):
        assert other.combination == first.combination
    assert described(a, "above", b).combination != first.combination
    assert described(a, "left", phrase("red", "square")).combination is None
    assert Description(first=a).combination is None


def test_captions_are_true_and_short(trained, held_out):
    for each in trained + held_out:
        caption, description = each.caption, each.description
        assert len(caption.split()) <= MAX_WORDS
        assert str(description.first) in caption
        named = description.second is not None and str(description.second) in caption
        relation = description.relation
        for opposite in (relation, OPPOSITE.get(relation)):
            told = [
                wording.format(description.first, description.second) in caption
                for wording in WORDINGS.get(opposite, ())
            ]
            assert not any(told) or (named and opposite == relation)
    assert sum(" and " in each.caption for each in trained) < N / 2


def test_wordings():
    a, b = phrase("orange", "circle"), phrase("blue", "square")
    assert described(a, "left", b).caption(0) == (
        "an orange circle to the left of a blue square"
    )
    assert described(b, "below", a).caption(2) == (
        "a blue square at the bottom and an orange circle at the top"
    )
    full = Phrase(thing=phrase("orange", "ring").thing, size=True, texture=True)
    assert str(full) == "a large plain orange ring"


@pytest.mark.parametrize("relation", WORDINGS)
def test_pictures_show_the_relation(relation):
    random = np.random.default_rng(0)
    for shapes in product(SHAPES, SHAPES):
        description = described(
            phrase("red", shapes[0], "small"), relation, phrase("cyan", shapes[1])
        )
        image = draw_scene(description, random).astype(float)
        red = image @ [1, -0.5, -0.5] > 110
        cyan = image @ [-1, 0.5, 0.5] > 110
        assert 15 < red.sum() < cyan.sum() * 1.5
        axis = 1 if relation in ("left", "right") else 0
        first, second = (np.argwhere(mask).mean(0) for mask in (red, cyan))
        forwards = relation in ("left", "above")
        away, aside = (second - first)[[axis, 1 - axis]]
        assert (away if forwards else -away) > 7 > abs(aside)


def test_things_do_not_leave_the_picture_or_meet():
    random = np.random.default_rng(1)
    for _ in range(50):
        description = described(phrase("red", "circle"), "left", phrase("blue", "ring"))
        image = draw_scene(description, random).astype(float)
        red, blue = image @ [1, -0.5, -0.5] > 80, image @ [-0.5, -0.5, 1] > 80
        for mask in (red, blue):
            edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
            assert not any(edge.any() for edge in edges)
        assert np.argwhere(red)[:, 1].max() < np.argwhere(blue)[:, 1].min()


def test_sizes_and_textures_are_to_be_seen():
    def drawn(**changes):
        random = np.random.default_rng(2)
        return draw_scene(Description(first=phrase("red", "square", **changes)), random)

    def area(image):
        return (image.astype(float) @ [1, -0.5, -0.5] > 80).sum()

    assert area(drawn()) > 1.5 * area(drawn(size="small"))
    plain, striped, dotted = (drawn(texture=texture) for texture in TEXTURES)
    assert area(striped) < 0.85 * area(plain) and area(dotted) < 0.85 * area(plain)
    assert np.abs(striped.astype(int) - dotted).max() > 100


def test_unknown_split():
    with pytest.raises(DiffjaxError, match=r"split 'test'.*train, heldout"):
        scene(0, 0, "test")
