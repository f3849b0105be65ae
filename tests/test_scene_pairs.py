"""Pairs of scenes in Winoground's format."""

from collections import Counter

import numpy as np
import pytest

from diffjax.data.scene_pairs import SWAPS, scene_pair, write_scene_pairs
from diffjax.data.scenes import WORDINGS, is_held_out
from diffjax.data.winoground import read_winoground

N = 160


@pytest.fixture(scope="module")
def pairs():
    return [scene_pair(0, index) for index in range(N)]


def test_pure_function_of_seed_and_index(pairs):
    again, other = scene_pair(0, 7), scene_pair(1, 7)
    assert again.captions == pairs[7].captions != other.captions
    np.testing.assert_array_equal(again.images[1], pairs[7].images[1])


def test_the_same_words_about_different_scenes(pairs):
    for pair in pairs:
        first, second = (c.replace("an ", "a ").split() for c in pair.captions)
        assert first != second and Counter(first) == Counter(second)
        one, two = pair.descriptions
        assert one.things != two.things
        for caption, description in zip(pair.captions, pair.descriptions, strict=True):
            told = WORDINGS[description.relation][pair.wording]
            assert told.format(description.first, description.second) in caption
        assert not np.array_equal(*pair.images)


def test_all_is_held_out(pairs):
    for pair in pairs:
        one, two = (description.combination for description in pair.descriptions)
        assert one == two and is_held_out(one)


def test_what_a_tag_exchanges(pairs):
    for pair in pairs:
        first, second = pair.descriptions
        swap, a, b = SWAPS[pair.tag], first.first, first.second
        assert (first.relation != second.relation) == swap.sides
        if swap.phrases:
            assert (second.first, second.second) == (b, a)
            continue
        for each in ("shape", "colour", "texture", "size"):
            here, there = getattr(a.thing, each), getattr(b.thing, each)
            exchanged = (there, here) if each in swap.attributes else (here, there)
            found = [getattr(x.thing, each) for x in (second.first, second.second)]
            assert tuple(found) == exchanged
            assert here != there or each not in swap.attributes


def test_written_as_winoground_is_read(tmp_path, pairs):
    write_scene_pairs(tmp_path / "new" / "set", 16, 0)
    examples = read_winoground(tmp_path / "new" / "set")
    assert Counter(example.tag for example in examples) == dict.fromkeys(SWAPS, 2)
    assert {example.collapsed_tag for example in examples} == {
        *("Object", "Relation", "Both")
    }
    for example, pair in zip(examples, pairs, strict=False):
        assert example.captions == pair.captions
        for image, pixels in zip(example.load_images(), pair.images, strict=True):
            np.testing.assert_array_equal(np.asarray(image), pixels)
