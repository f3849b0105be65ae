"""Pairs of held-out scenes in Winoground's manner and file format.

The two captions of a pair have the same words ("a" and "an" apart), and differ by one
or two exchanges; each has a picture of its own. All scenes are of combinations that
``scenes`` holds out of training. "Object", "Relation" and "Both" are meant as in
Winoground: nouns change places; adjectives or prepositions do; or one of each.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffjax.data.scenes import (
    OPENINGS,
    OPPOSITE,
    SPLITS,
    Description,
    Phrase,
    draw_held_out,
    draw_scene,
)
from diffjax.files import json_text, write_text

SIDES = 2  # the wording that names both sides, which can so be exchanged


@dataclass(frozen=True, kw_only=True)
class Swap:
    """What is exchanged between the captions.

    Attributes:
        collapsed: Winoground's collapsed tag.
        phrases: whether the things do, with all that is said of them.
        attributes: of the things, otherwise.
        sides: whether "left" and "right", or "top" and "bottom", are exchanged.
    """

    collapsed: str
    phrases: bool = False
    attributes: tuple[str, ...] = ()
    sides: bool = False


# By tag.
SWAPS: dict[str, Swap] = {
    "Noun Phrase": Swap(collapsed="Object", phrases=True),
    "Noun": Swap(collapsed="Object", attributes=("shape",)),
    "Adjective-Color": Swap(collapsed="Relation", attributes=("colour",)),
    "Adjective-Size": Swap(collapsed="Relation", attributes=("size",)),
    "Adjective-Texture": Swap(collapsed="Relation", attributes=("texture",)),
    "Preposition": Swap(collapsed="Relation", sides=True),
    "Noun, Preposition": Swap(collapsed="Both", attributes=("shape",), sides=True),
    "Noun, Adjective-Size": Swap(collapsed="Both", attributes=("shape", "size")),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ScenePair:
    """Two scenes; caption k belongs to image k.

    Attributes:
        tag: a key of ``SWAPS``.
        captions: two captions of the same words.
        images: 0 to 255.
        descriptions: what is in the scenes.
        wording: of both captions, among those of their relation.
    """

    tag: str
    captions: tuple[str, str]
    images: tuple[UInt8[np.ndarray, "32 32 3"], UInt8[np.ndarray, "32 32 3"]]
    descriptions: tuple[Description, Description]
    wording: int


def scene_pair(seed: int, index: int) -> ScenePair:
    """The pair of this number; the tags take turns."""
    tag = tuple(SWAPS)[index % len(SWAPS)]
    swap = SWAPS[tag]
    # a stream besides those of the splits
    random = np.random.default_rng((seed, index, len(SPLITS)))
    first = _draw(swap, random)
    second = swapped(first, swap)
    opening = OPENINGS[random.integers(len(OPENINGS))]
    wording = SIDES if swap.sides else int(random.integers(SIDES + 1))
    return ScenePair(
        tag=tag,
        captions=(opening + first.caption(wording), opening + second.caption(wording)),
        images=(draw_scene(first, random), draw_scene(second, random)),
        descriptions=(first, second),
        wording=wording,
    )


def swapped(description: Description, swap: Swap) -> Description:
    """The other scene of a pair."""
    first, second = description.first, description.second
    assert second is not None and description.relation is not None
    relation = OPPOSITE[description.relation] if swap.sides else description.relation
    if swap.phrases:
        first, second = second, first
    return Description(
        first=_with(first, second, swap.attributes),
        second=_with(second, first, swap.attributes),
        relation=relation,
    )


def write_scene_pairs(folder: Path, n: int, seed: int) -> None:
    """Write n pairs as ``data.winoground.read_winoground`` reads them.

    Args:
        folder: gets data/examples.jsonl and data/images/; made if it is missing.
        n: pairs; a multiple of the number of tags has as many of each.
        seed: the seed of the pairs.
    """
    images = folder / "data" / "images"
    images.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(n):
        pair = scene_pair(seed, index)
        names = [f"ex_{index}_img_{k}" for k in (0, 1)]
        for name, pixels in zip(names, pair.images, strict=True):
            Image.fromarray(pixels).save(images / f"{name}.png")
        line = {
            "id": index,
            "caption_0": pair.captions[0],
            "caption_1": pair.captions[1],
            "image_0": names[0],
            "image_1": names[1],
            "tag": pair.tag,
            "secondary_tag": "",
            "num_main_preds": 2 if pair.wording == SIDES else 1,
            "collapsed_tag": SWAPS[pair.tag].collapsed,
        }
        lines.append(json_text(line) + "\n")
    write_text(folder / "data" / "examples.jsonl", "".join(lines))


def _draw(swap: Swap, random: np.random.Generator) -> Description:
    """A held-out scene that an exchange changes, with what is exchanged in words."""
    while True:
        description = draw_held_out(random)
        first, second = description.first, description.second
        assert second is not None
        if all(
            getattr(first.thing, each) != getattr(second.thing, each)
            for each in swap.attributes
        ):
            return replace(
                description,
                first=_naming(first, swap.attributes),
                second=_naming(second, swap.attributes),
            )


def _naming(phrase: Phrase, attributes: tuple[str, ...]) -> Phrase:
    """The phrase, naming these attributes at least."""
    return replace(
        phrase,
        size=phrase.size or "size" in attributes,
        texture=phrase.texture or "texture" in attributes,
    )


def _with(phrase: Phrase, other: Phrase, attributes: tuple[str, ...]) -> Phrase:
    """The phrase, with another thing's attributes."""
    taken = {each: getattr(other.thing, each) for each in attributes}
    return replace(phrase, thing=replace(phrase.thing, **taken))
