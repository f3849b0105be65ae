"""Pixels of a model's size: crops, resizing and their range."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffjax import choices
from diffjax.data.images import load_image, preprocess
from diffjax.errors import DiffjaxError

NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def stripes(width: int, height: int, axis: int) -> Image.Image:
    """Each column (axis 1) or row (axis 0) has its own index as grey value."""
    index = np.indices((height, width))[axis]
    return Image.fromarray(np.repeat(index[..., None], 3, axis=2).astype(np.uint8))


# Transforms
def to_bytes(pixels: np.ndarray) -> np.ndarray:
    return (pixels + 1) * 127.5


@pytest.mark.parametrize("transform", ["resize_crop", "adm"])
@pytest.mark.parametrize("size", [(64, 64), (31, 77), (300, 40), (5, 9), (2, 2)])
@pytest.mark.parametrize("resolution", [1, 16, 33])
def test_shape_dtype_and_range(transform, size, resolution):
    rng = np.random.default_rng(2)
    image = load_image(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    pixels = preprocess(image, resolution, transform=transform)
    assert pixels.shape == (resolution, resolution, 3)
    assert pixels.dtype == np.float32
    assert pixels.min() >= -1 and pixels.max() <= 1


@pytest.mark.parametrize("transform", ["resize_crop", "adm"])
def test_black_grey_white(transform):
    for value, expected in [(0, -1), (51, -0.6), (255, 1)]:
        image = Image.new("RGB", (50, 40), (value,) * 3)
        pixels = preprocess(image, 8, transform=transform)
        np.testing.assert_allclose(pixels, expected, atol=1e-6)


@pytest.mark.parametrize("transform", ["resize_crop", "adm"])
def test_an_image_of_the_right_size_stays_as_it_is(transform):
    square = NOISE[:, :12]
    pixels = preprocess(load_image(square), 12, transform=transform)
    np.testing.assert_allclose(to_bytes(pixels), square, atol=1e-4)


# (length - resolution) / 2 is 1.5 -> 2, 2.5 -> 2 (to even), 0.5 -> 0; ADM rounds down.
@pytest.mark.parametrize(
    ("transform", "extra", "offset"),
    [
        ("resize_crop", 4, 2),
        ("resize_crop", 1, 0),
        ("resize_crop", 3, 2),
        ("resize_crop", 5, 2),
        ("resize_crop", 7, 4),
        ("adm", 4, 2),
        ("adm", 1, 0),
        ("adm", 3, 1),
        ("adm", 5, 2),
        ("adm", 7, 3),
    ],
)
def test_crop_offsets(transform, extra, offset):
    wide = preprocess(stripes(16 + extra, 16, axis=1), 16, transform=transform)
    np.testing.assert_allclose(
        to_bytes(wide)[3, :, 0], np.arange(16) + offset, atol=1e-4
    )
    tall = preprocess(stripes(16, 16 + extra, axis=0), 16, transform=transform)
    np.testing.assert_allclose(
        to_bytes(tall)[:, 3, 0], np.arange(16) + offset, atol=1e-4
    )


# From x 10 to 7: 15 gives 10.5, cut by torchvision, rounded to even by ADM: both 10.
# 17 gives 11.9, cut to 11 or rounded to 12; 23 gives 16.1.
@pytest.mark.parametrize(
    ("width", "transform", "longer"),
    [
        (15, "resize_crop", 10),
        (17, "resize_crop", 11),
        (23, "resize_crop", 16),
        (15, "adm", 10),
        (17, "adm", 12),
        (23, "adm", 16),
    ],
)
def test_longer_edge(width, transform, longer, monkeypatch):
    sizes = []
    resize = Image.Image.resize

    def spy(image, size, *arguments, **options):
        sizes.append(size)
        return resize(image, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", spy)
    preprocess(Image.new("RGB", (width, 10)), 7, transform=transform)
    preprocess(Image.new("RGB", (10, width)), 7, transform=transform)
    assert sizes == [(longer, 7), (7, longer)]


# torchvision's results for images that shrink, stay and grow, to 2.7 times their size;
# scripts/make_resize_goldens.py made the file.
RESIZED = dict(np.load(Path(__file__).parents[1] / "goldens" / "resize.npz"))

RESIZED_KEYS = [key for key in RESIZED if ":" in key]


def resized_as(key):
    """What we make of the input that a stored result is of; in 8-bit levels."""
    name, resolution, interpolation, _ = key.split(":")
    image = load_image(RESIZED[name])
    return to_bytes(preprocess(image, int(resolution), interpolation=interpolation))


@pytest.mark.parametrize("key", [key for key in RESIZED_KEYS if key.endswith("pil")])
def test_resize_is_torchvisions_of_pil_images(key):
    # Pillow does both, so they are equal, not just close.
    np.testing.assert_allclose(resized_as(key), RESIZED[key], atol=1e-4)


@pytest.mark.parametrize("key", [key for key in RESIZED_KEYS if key.endswith("tensor")])
def test_resize_is_nearly_torchvisions_of_tensors(key):
    image, resolution, interpolation, _ = key.split(":")
    enlarged = int(resolution) > min(RESIZED[image].shape[:2])
    # Pillow rounds after each of two passes; where enlarged noise overshoots, it clips.
    level = 16 if "noise" in image and enlarged and interpolation == "bicubic" else 1
    difference = np.abs(resized_as(key) - RESIZED[key])
    assert difference.max() <= level + 1e-4
    assert difference.mean() <= 0.75


def test_adm_halves_with_a_box_first():
    pattern = np.zeros((16, 16, 3), np.uint8)
    pattern[::2, ::2] = 200  # every 2x2 block averages to 50
    pixels = preprocess(load_image(pattern), 4, transform="adm")
    np.testing.assert_allclose(to_bytes(pixels), 50, atol=1e-4)
    # At exactly twice the resolution too: a bicubic step would spread the dot.
    dot = np.zeros((8, 8, 3), np.uint8)
    dot[2, 2] = 200
    expected = np.zeros((4, 4, 3))
    expected[1, 1] = 50
    pixels = preprocess(load_image(dot), 4, transform="adm")
    np.testing.assert_allclose(to_bytes(pixels), expected, atol=1e-4)


def test_downscaling_is_antialiased():
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    image = load_image(checker.astype(np.uint8))
    assert np.ptp(to_bytes(preprocess(image, 16))[2:-2, 2:-2]) <= 2
    assert np.ptp(to_bytes(preprocess(image, 15, interpolation="nearest"))) == 255


def test_gradient_keeps_its_values():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 256, axis=0)
    pixels = to_bytes(preprocess(load_image(ramp), 64))[32, :, 0]
    centres = np.arange(64) * 4 + 1.5  # the middle of each run of four columns
    np.testing.assert_allclose(pixels[2:-2], centres[2:-2], atol=0.51)


def test_upscaling_nearest_repeats_pixels():
    pixels = preprocess(load_image(NOISE[:4, :4]), 8, interpolation="nearest")
    expected = NOISE[:4, :4].repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(to_bytes(pixels), expected, atol=1e-4)


def test_each_interpolation_is_its_own():
    image = load_image(np.random.default_rng(3).integers(0, 256, (40, 40), np.uint8))
    results = [preprocess(image, 13, interpolation=i) for i in choices.INTERPOLATIONS]
    assert len(results) == 6
    assert len({result.tobytes() for result in results}) == 6


@pytest.mark.parametrize("options", [{}, {"transform": "adm"}])
def test_interpolation_reaches_both_transforms(options):
    image = load_image(NOISE)
    a = preprocess(image, 9, interpolation="lanczos", **options)
    b = preprocess(image, 9, interpolation="nearest", **options)
    assert not np.array_equal(a, b)


def test_preprocess_refuses():
    image = load_image(NOISE)
    with pytest.raises(DiffjaxError, match=r"RGBA.*load_image"):
        preprocess(image.convert("RGBA"), 8)
    with pytest.raises(DiffjaxError, match="at least 1"):
        preprocess(image, 0)
    with pytest.raises(DiffjaxError, match=r"'cubic'.*bicubic"):
        preprocess(image, 8, interpolation="cubic")
