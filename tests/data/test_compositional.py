"""Readers of compositional sets, on excerpts with their authors' keys."""

import json

import caption_sets
import pytest

from diffjax.data.compositional import counts, read_captions, symmetric_relations
from diffjax.errors import DiffjaxError


def test_aro(tmp_path):
    found = read_captions(caption_sets.write_aro(tmp_path))
    assert len(found) == 4 + 27
    first, last = found[0], found[-1]
    assert first.id == "VG-Relation 0" and first.images[0].name == "2354786.jpg"
    assert first.captions == (
        "the man riding the horse 0",
        "the horse riding the man 0",
    )
    assert (first.collapsed_tag, first.tag) == ("VG-Relation", "riding")
    assert first.box == (1, 2, 6, 6)  # what PIL's crop takes
    assert (last.collapsed_tag, last.tag) == ("VG-Attribution", "white_open")


def test_what_counts_in_aros_macro_accuracy():
    """As in the notebook of its authors: relations one way, 25 examples a pair."""
    assert len(symmetric_relations()) == 157
    assert {"near", "next to", "with"} <= symmetric_relations()
    assert counts("VG-Relation", "riding", 1) and not counts("VG-Relation", "near", 99)
    assert counts("VG-Attribution", "a_b", 25) and not counts("VG-Attribution", "", 24)
    assert counts("swap", "swap_obj", 1)


def test_sugar_crepe(tmp_path):
    root = caption_sets.write_sugar_crepe(tmp_path)
    found = read_captions(root, root / "val2017")
    assert [each.id for each in found] == ["replace_att 0", "swap_obj 0"]
    assert [each.collapsed_tag for each in found] == ["replace", "swap"]
    assert found[1].captions[1].endswith("swats at its hind legs.")
    [alone] = read_captions(root / "data" / "swap_obj.json", root / "val2017")
    assert alone == found[1]
    with pytest.raises(DiffjaxError, match=r"Fetch val2017.zip of COCO, and name its"):
        read_captions(root / "data" / "swap_obj.json", root / "data")


def test_valse(tmp_path):
    """Those that two annotators found right; images of several sources."""
    root = caption_sets.write_valse(tmp_path)
    found = read_captions(root)
    tags = [("existence", "existence"), ("actions", "actant-swap")]
    assert [(each.collapsed_tag, each.tag) for each in found] == tags
    assert found[0].captions == (
        "There are no people in the picture.",
        "There are people in the picture.",
    )
    assert found[1].images[0].parent.name == "512"
    twice = root / "images" / "other" / "exercising_255.jpg"
    twice.parent.mkdir()
    twice.write_bytes(found[1].images[0].read_bytes())
    with pytest.raises(DiffjaxError, match=r"there are 2 images exercising_255\.jpg"):
        read_captions(root)
    for path in (twice, found[1].images[0]):
        path.unlink()
    with pytest.raises(DiffjaxError, match="Fetch the images of SWiG"):
        read_captions(root)


def test_cola_is_winogrounds_kind(tmp_path):
    [example] = read_captions(caption_sets.write_cola(tmp_path))
    assert example.captions == (caption_sets.COLA[0][1], caption_sets.COLA[0][3])
    assert [path.name for path in example.images] == ["2390970.jpg", "2388902.jpg"]
    example.images[1].unlink()
    with pytest.raises(DiffjaxError, match=r"Fetch https://\S+/2388902.jpg into"):
        read_captions(tmp_path)


def test_lists_of_ones_own(tmp_path):
    [example] = read_captions(caption_sets.write_order(tmp_path))
    assert len(example.captions) == 3 and example.collapsed_tag == "coco-order"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no file of ARO, SugarCrepe"),
        ({"0": {"caption": "a"}}, "no file of ARO, SugarCrepe"),
        ([["a", "b", "c"]], "address of an image"),
        ([caption_sets.RELATIONS[0] | {"bbox_w": 0}], "bbox_w and bbox_h must be"),
        ([caption_sets.RELATIONS[0] | {"image_path": "../x.jpg"}], "no name of an"),
        ([caption_sets.RELATIONS[0] | {"true_caption": 3}], "true_caption must be"),
        ([caption_sets.RELATIONS[0], 3], "relation_name must be a text"),
        ({"0": caption_sets.VALSE["actant-swap"]["actions_test_0"] | {"mturk": {}}},
         "mturk must tell"),
        ({"0": {"filename": "a", "caption": "b", "negative_caption": "b"}},
         "is the right one, 'b'"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_told_with_its_place(tmp_path, content, message):
    root = caption_sets.write_aro(tmp_path)
    path = root / "mine.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DiffjaxError, match=message) as told:
        read_captions(path)
    assert str(path) in str(told.value)


def test_a_folder_of_something_else_is_told_what_there_could_be(tmp_path):
    with pytest.raises(DiffjaxError, match=r"RAIVNLab/sugar-crepe.*arijitray1993/COLA"):
        read_captions(tmp_path)
    with pytest.raises(DiffjaxError, match=r"no data/examples.jsonl"):
        read_captions(tmp_path / "nothing")
