"""Pairs of scenes in Winoground's format."""

import runpy
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffjax.data.images import load_image
from diffjax.data.scene_pairs import SWAPS, scene_pair, write_scene_pairs
from diffjax.data.scenes import WORDINGS, is_held_out
from diffjax.data.winoground import read_winoground

N = 160
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_scenes.py"


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
        for image, pixels in zip(
            map(load_image, example.images), pair.images, strict=True
        ):
            np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("scenes", [(), ("--scenes",)])
def test_the_script_writes_pairs_and_a_sheet(tmp_path, monkeypatch, scenes):
    out, sheet = tmp_path / "pairs", tmp_path / "sheet.png"
    arguments = ["--out", out, "--n", 3, "--sheet", sheet, *scenes]
    monkeypatch.setattr(sys, "argv", ["make_scenes", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert len(read_winoground(out)) == 3
    with Image.open(sheet) as picture:
        assert picture.width > 8 * 128 and picture.height > 5 * 128
