"""Draws coloured shapes on quiet backgrounds, smooth at the edges, with numpy.

A shape is the set where a signed distance d to its outline, in pixels, is negative; a
pixel's share of it is 0.5 − d, cut to [0, 1]. So edges are antialiased at any place.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

SIDE = 32  # pixels

Plane = Float[np.ndarray, "32 32"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "orange": (255, 140, 0),
    "yellow": (255, 230, 30),
    "green": (25, 150, 50),
    "cyan": (40, 220, 235),
    "blue": (35, 60, 225),
    "purple": (125, 30, 165),
    "pink": (255, 150, 205),
}


def _cross(x: Plane, y: Plane, r: float) -> Plane:
    x, y, arm = np.abs(x), np.abs(y), 0.34 * r
    upright, level = np.maximum(x - arm, y - r), np.maximum(x - r, y - arm)
    return np.minimum(upright, level)


def _triangle(x: Plane, y: Plane, r: float) -> Plane:
    # the slanted sides go from (0, −r) to (±r, 0.8 r)
    sides = (1.8 * np.abs(x) - (y + r)) / np.hypot(1.8, 1)
    both: Plane = np.maximum(sides, y - 0.8 * r)
    return both


# The signed distance at (x, y), y downwards, from the centre of a shape that reaches
# about r from it.
SHAPES: dict[str, Callable[[Plane, Plane, float], Plane]] = {
    "circle": lambda x, y, r: np.hypot(x, y) - r,
    "square": lambda x, y, r: np.maximum(np.abs(x), np.abs(y)) - 0.9 * r,
    "triangle": _triangle,
    "cross": _cross,
    "ring": lambda x, y, r: np.abs(np.hypot(x, y) - 0.72 * r) - 0.28 * r,
}

# Where the second colour is, as a signed distance; None where there is no second one.
TEXTURES: dict[str, Callable[[Plane, Plane], Plane] | None] = {
    "plain": None,
    "striped": lambda x, y: np.abs(y % 4 - 2) - 0.7,  # none through the centre
    "dotted": lambda x, y: np.hypot(x % 4 - 2, y % 4 - 2) - 1.1,
}
BACKGROUNDS = ("plain", "gradient", "noisy")

_Y, _X = (plane.astype(np.float32) + 0.5 for plane in np.mgrid[:SIDE, :SIDE])


def draw_background(
    kind: str, random: np.random.Generator
) -> Float[np.ndarray, "32 32 3"]:
    """A greyish background, in [0, 255].

    Args:
        kind: one of ``BACKGROUNDS``.
        random: decides its colours.
    """
    ends = random.uniform(80, 190, (2, 1)) + random.uniform(-18, 18, (2, 3))
    first, second = ends.astype(np.float32)
    canvas = np.broadcast_to(first, (SIDE, SIDE, 3)).copy()
    if kind == "gradient":
        angle = random.uniform(0, 2 * np.pi)
        way = np.cos(angle) * (_X / SIDE - 0.5) + np.sin(angle) * (_Y / SIDE - 0.5)
        share = (way / np.sqrt(2) + 0.5).astype(np.float32)[..., None]
        canvas += share * (second - first)
    elif kind == "noisy":
        canvas += random.normal(0, 7, canvas.shape).astype(np.float32)
    return canvas


def draw_thing(
    canvas: Float[np.ndarray, "32 32 3"],
    *,
    shape: str,
    colour: str,
    texture: str,
    centre: tuple[float, float],
    radius: float,
    shift: Float[np.ndarray, "3"],
) -> None:
    """Draw one shape onto a canvas, in place.

    Args:
        canvas: colours in [0, 255].
        shape, colour, texture: keys of the tables above.
        centre: (x, y) in pixels from the upper left corner.
        radius: half of the width, in pixels.
        shift: added to the colour.
    """
    x, y = _X - centre[0], _Y - centre[1]
    paint = np.array(COLOURS[colour], np.float32) + shift
    ink = np.broadcast_to(paint, canvas.shape)
    if (pattern := TEXTURES[texture]) is not None:
        # nearly black on light colours, nearly white on dark ones
        luma = float(paint @ np.array([0.299, 0.587, 0.114]))
        second = 20.0 if luma > 128 else 235.0
        ink = _mix(ink, second, pattern(x, y))
    canvas[:] = _mix(canvas, ink, SHAPES[shape](x, y, radius))


def _mix(
    under: np.ndarray, over: np.ndarray | float, distance: Plane
) -> Float[np.ndarray, "32 32 3"]:
    share = np.clip(0.5 - distance, 0, 1)[..., None]
    return under + share * (over - under)


def as_image(canvas: Float[np.ndarray, "32 32 3"]) -> UInt8[np.ndarray, "32 32 3"]:
    """Rounded and cut to [0, 255]."""
    image: np.ndarray = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return image
