"""Composed scenes: captioned pictures of coloured shapes, one beside or above another.

A scene is a pure function of (seed, index, split); nothing is stored. Most scenes hold
two things of different kinds, a kind being a colour and a shape; the others hold one.

What is held out of training, entirely, are combinations: of an axis (side by side, or
one above the other), two different colours and two different shapes. A combination
says neither which colour goes with which shape nor which thing is where, so its four
scenes are held out together, in whatever words: "a red circle left of a blue square",
"a blue square right of a red circle", "a blue square left of a red circle", "a red
square left of a blue circle" … About one combination in eight is, by a hash of its
name (``is_held_out``). All colours, shapes, kinds, relations and textures are trained
on, and so are the same kinds along the other axis.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from diffjax.data.drawing import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIDE,
    TEXTURES,
    as_image,
    draw_background,
    draw_thing,
)
from diffjax.errors import unknown

RADII = {"small": (4.4, 4.9), "large": (6.7, 7.1)}  # pixels, from and to
SPLITS = ("train", "heldout")

# By what the thing named first is to the second; the last wording names both sides, so
# that the two relations of an axis can be told in the same words.
WORDINGS: dict[str, tuple[str, ...]] = {
    "left": (
        "{} to the left of {}",
        "{} left of {}",
        "{} on the left and {} on the right",
    ),
    "right": (
        "{} to the right of {}",
        "{} right of {}",
        "{} on the right and {} on the left",
    ),
    "above": ("{} above {}", "{} over {}", "{} at the top and {} at the bottom"),
    "below": ("{} below {}", "{} under {}", "{} at the bottom and {} at the top"),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
OPENINGS = ("", "", "", "a picture of ", "a drawing of ", "there is ")
MAX_WORDS = 20  # of a caption

_TEXTURES = ("plain", *TEXTURES)  # half of the things are plain
_ONE_THING = 0.15  # share of the training scenes
_ONE_NAMED = 0.1  # share of the captions of two things that name one of them
_NO_RELATION = 0.1  # share that name both, but not how they lie


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One shape; each attribute is a word of the captions."""

    shape: str
    colour: str
    texture: str
    size: str

    @property
    def kind(self) -> tuple[str, str]:
        """Colour and shape."""
        return self.colour, self.shape


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """How a caption names a thing: colour and shape always, the rest perhaps."""

    thing: Thing
    size: bool
    texture: bool

    def __str__(self) -> str:
        """For example "a small striped red circle"."""
        words = [self.thing.size] * self.size + [self.thing.texture] * self.texture
        words += [self.thing.colour, self.thing.shape]
        article = "an" if words[0] == "orange" else "a"
        return " ".join([article, *words])


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is to be seen, and how its caption puts it.

    Attributes:
        first, second: the things, as the caption would name them; ``second`` is None
            in a scene of one thing.
        relation: of the first thing to the second, a key of ``WORDINGS``; None with
            one thing.
    """

    first: Phrase
    second: Phrase | None = None
    relation: str | None = None

    @property
    def things(self) -> tuple[Thing, ...]:
        """One thing, or the left or upper one and then the other."""
        if self.second is None:
            return (self.first.thing,)
        both = self.first.thing, self.second.thing
        return both if self.relation in ("left", "above") else both[::-1]

    @property
    def combination(self) -> str | None:
        """The name of the combination; None if colours, shapes or things are single."""
        if self.second is None:
            return None
        first, second = self.first.thing, self.second.thing
        if first.colour == second.colour or first.shape == second.shape:
            return None
        axis = "side" if self.relation in ("left", "right") else "above"
        colours = sorted((first.colour, second.colour))
        return " ".join((axis, *colours, *sorted((first.shape, second.shape))))

    def caption(self, wording: int) -> str:
        """The full caption, in one of the wordings of its relation."""
        if self.second is None or self.relation is None:
            return str(self.first)
        return WORDINGS[self.relation][wording].format(self.first, self.second)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A picture, its caption, and all that is in it.

    Attributes:
        image: 0 to 255.
        caption: true, at most ``MAX_WORDS`` words, not always complete.
        description: complete.
    """

    image: UInt8[np.ndarray, "32 32 3"]
    caption: str
    description: Description


def is_held_out(combination: str | None) -> bool:
    """Whether a combination is kept from training."""
    if combination is None:
        return False
    return hashlib.sha256(combination.encode()).digest()[0] % 8 == 0


def scene(seed: int, index: int, split: str = "train") -> Scene:
    """The scene of this number.

    Args:
        seed: of the set of scenes, from 0.
        index: from 0.
        split: "train", with one thing or two and without held-out combinations; or
            "heldout", of two things in held-out combinations, with complete relations.

    Raises:
        DiffjaxError: if there is no such split.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    random = np.random.default_rng((seed, index, SPLITS.index(split)))
    if split == "train":
        description = draw_description(random)
        while is_held_out(description.combination):
            description = draw_description(random)
        caption = _partial_caption(description, random)
    else:
        description = draw_held_out(random)
        caption = description.caption(int(random.integers(3)))
    opening = OPENINGS[random.integers(len(OPENINGS))]
    image = draw_scene(description, random)
    return Scene(image=image, caption=opening + caption, description=description)


def scenes(
    n: int, seed: int, split: str = "train"
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], list[str]]:
    """The images and captions of scenes 0 … n − 1.

    Raises:
        DiffjaxError: if there is no such split.
    """
    images = np.empty((n, SIDE, SIDE, 3), np.uint8)
    captions = []
    for index in range(n):
        each = scene(seed, index, split)
        images[index] = each.image
        captions.append(each.caption)
    return images, captions


def draw_description(random: np.random.Generator) -> Description:
    """Any scene: one thing, or two of different kinds; held out or not."""
    first = _draw_phrase(random)
    if random.random() < _ONE_THING:
        return Description(first=first)
    second = _draw_phrase(random)
    while second.thing.kind == first.thing.kind:
        second = _draw_phrase(random)
    relation = _one_of(tuple(WORDINGS), random)
    return Description(first=first, second=second, relation=relation)


def draw_held_out(random: np.random.Generator) -> Description:
    """Two things in a held-out combination."""
    while not is_held_out((description := draw_description(random)).combination):
        pass
    return description


def draw_scene(
    description: Description, random: np.random.Generator
) -> UInt8[np.ndarray, "32 32 3"]:
    """A picture of what is described; background and places are drawn."""
    canvas = draw_background(_one_of(BACKGROUNDS, random), random)
    things = description.things
    radii = [float(random.uniform(*RADII[thing.size])) for thing in things]
    centres = _places(radii, random)
    if description.relation in ("above", "below"):
        centres = [(y, x) for x, y in centres]
    for thing, radius, centre in zip(things, radii, centres, strict=True):
        draw_thing(
            canvas,
            shape=thing.shape,
            colour=thing.colour,
            texture=thing.texture,
            centre=centre,
            radius=radius,
            shift=random.uniform(-12, 12, 3),
        )
    return as_image(canvas)


def _places(
    radii: list[float], random: np.random.Generator
) -> list[tuple[float, float]]:
    """Centres from left to right, at nearly the same height, a pixel or more apart."""
    gaps = len(radii) + 1  # one before each, one after the last
    spare = SIDE - 2 * sum(radii) - gaps
    cuts = np.sort(random.uniform(0, spare, len(radii)))
    height = float(random.uniform(max(radii) + 1, SIDE - max(radii) - 1))
    places, taken = [], 0.0
    for cut, radius in zip(cuts, radii, strict=True):
        x = float(cut) + taken + 1 + radius
        y = height + float(random.uniform(-2.5, 2.5))
        places.append((x, float(np.clip(y, radius + 1, SIDE - radius - 1))))
        taken += 2 * radius + 1
    return places


def _draw_phrase(random: np.random.Generator) -> Phrase:
    thing = Thing(
        shape=_one_of(tuple(SHAPES), random),
        colour=_one_of(tuple(COLOURS), random),
        texture=_one_of(_TEXTURES, random),
        size=_one_of(tuple(RADII), random),
    )
    size, texture = random.random(2) < 0.5
    return Phrase(thing=thing, size=bool(size), texture=bool(texture))


def _partial_caption(description: Description, random: np.random.Generator) -> str:
    """The caption, in which a thing or the relation may be left out."""
    chance = random.random()
    wording = int(random.integers(3))
    if description.second is None or chance >= _ONE_NAMED + _NO_RELATION:
        return description.caption(wording)
    if chance < _ONE_NAMED:
        return str(description.first)
    return f"{description.first} and {description.second}"


def _one_of(options: tuple[str, ...], random: np.random.Generator) -> str:
    return options[random.integers(len(options))]
