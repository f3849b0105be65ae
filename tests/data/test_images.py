"""Reading pictures of every kind, damaged ones too."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from diffjax.data import images
from diffjax.data.files import decode_plain
from diffjax.data.images import load_image, preprocess
from diffjax.errors import DiffjaxError

NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def stripes(width: int, height: int, axis: int) -> Image.Image:
    """Each column (axis 1) or row (axis 0) has its own index as grey value."""
    index = np.indices((height, width))[axis]
    return Image.fromarray(np.repeat(index[..., None], 3, axis=2).astype(np.uint8))


# Sources
@pytest.mark.parametrize("kind", ["path", "str", "bytes", "pil", "array"])
def test_every_kind_of_source_gives_the_same_pixels(tmp_path, kind):
    data = encode(Image.fromarray(NOISE), "PNG")
    path = tmp_path / "noise.png"
    path.write_bytes(data)
    source = {
        "path": path,
        "str": str(path),
        "bytes": data,
        "pil": Image.open(path),
        "array": NOISE,
    }[kind]
    image = load_image(source)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), NOISE)


def test_loading_twice_changes_nothing_and_shares_nothing():
    first = load_image(NOISE)
    second = load_image(first)
    second.putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(np.asarray(first), NOISE)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (NOISE[..., 0], np.repeat(NOISE[..., :1], 3, axis=2)),
        (NOISE[..., :1], np.repeat(NOISE[..., :1], 3, axis=2)),
        (NOISE / 255, NOISE),
        ((NOISE / 255).astype(np.float32), NOISE),
        (NOISE[:, ::-1], NOISE[:, ::-1]),
    ],
    ids=["HW", "HW1", "float64", "float32", "not contiguous"],
)
def test_arrays(array, expected):
    np.testing.assert_array_equal(np.asarray(load_image(array)), expected)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (NOISE.astype(np.float32), r"values from 0 to 255.*x / 255"),
        (NOISE / 127.5 - 1, r"values from -1 to 1.*\(x \+ 1\) / 2"),
        (np.full((4, 4), np.nan), "nan"),
        (NOISE.astype(np.int64), "dtype must be uint8"),
        (np.zeros((4, 4), bool), "dtype must be uint8"),
        (np.zeros((3, 8, 9), np.uint8), "channels last"),
        (np.zeros((2, 8, 9, 3), np.uint8), "one image"),
        (np.zeros((8, 9, 2), np.uint8), "channels last"),
        (np.zeros((8,), np.uint8), "one image"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
    ],
)
def test_arrays_that_are_refused(array, message):
    with pytest.raises(DiffjaxError, match=message):
        load_image(array)


# Colour
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa"])
def test_transparency_is_laid_on_white(mode):
    rgba = np.zeros((4, 4, 4), np.uint8)  # black under every transparent pixel
    rgba[:2, :, 3] = 255
    image = Image.fromarray(rgba)
    if mode == "PA":  # Pillow's own conversion to PA forgets the alpha
        converted = Image.new("P", (4, 4)).convert("PA")
        converted.putalpha(image.getchannel("A"))
    else:
        converted = image.convert(mode)
    assert converted.mode == mode
    pixels = np.asarray(load_image(converted))
    assert (pixels[:2] == 0).all()
    assert (pixels[2:] == 255).all()


def test_half_transparent_colour_is_mixed_with_white():
    rgba = np.full((2, 2, 4), (200, 100, 0, 128), np.uint8)
    pixel = np.asarray(load_image(rgba), float)[0, 0]
    expected = np.array([200, 100, 0]) * (128 / 255) + 255 * (127 / 255)
    np.testing.assert_allclose(pixel, expected, atol=1)


def test_palette_with_a_transparent_index():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((0, 0), 1)
    pixels = np.asarray(load_image(encode(image, "PNG", transparency=0)))
    assert tuple(pixels[0, 0]) == (255, 0, 0)
    assert tuple(pixels[1, 1]) == (255, 255, 255)


def test_cmyk():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = np.asarray(load_image(encode(image, "JPEG", quality=95))).astype(int)
    assert abs(red - (255, 0, 0)).max() < 10


def test_bilevel():
    image = Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1")
    np.testing.assert_array_equal(
        np.asarray(load_image(image))[..., 0], np.eye(8) * 255
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    wide = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = np.asarray(load_image(encode(Image.fromarray(wide), kind)))
    expected = np.rint(np.arange(64) * 255 / 63)
    np.testing.assert_allclose(pixels[..., 1].ravel(), expected, atol=1)
    assert pixels.min() == 0 and pixels.max() == 255


def test_wide_integers_and_floats_inside_pil_images():
    wide = np.array([[0, 257], [514, 65535]], np.int32)
    pixels = np.asarray(load_image(Image.fromarray(wide)))[..., 0]
    np.testing.assert_array_equal(pixels, [[0, 1], [2, 255]])
    with pytest.raises(DiffjaxError, match="beyond 16 bits"):
        load_image(Image.fromarray(wide * 2))
    with pytest.raises(DiffjaxError, match="beyond 16 bits"):
        load_image(Image.fromarray(wide - 1))
    floats = Image.fromarray(np.array([[0, 1], [0.2, 0.4]], np.float32))
    assert np.asarray(load_image(floats))[1, 0, 0] == 51
    with pytest.raises(DiffjaxError, match="must lie in"):
        load_image(Image.fromarray(wide.astype(np.float32)))


# Orientation and frames
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation(orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_image(encode(Image.fromarray(NOISE), "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(image), upright(NOISE))
    np.testing.assert_array_equal(np.asarray(load_image(image)), upright(NOISE))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame_and_a_warning(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with pytest.warns(UserWarning, match="several frames; only frame 1"):
        image = load_image(data)
    assert image.getpixel((4, 4)) == (255, 0, 0)


def test_still_images_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("GIF", "WEBP", "PNG", "TIFF", "JPEG", "BMP"):
            load_image(encode(Image.fromarray(NOISE), kind))


# Damage and danger
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_truncated_file_names_itself_and_the_remedy(tmp_path, kind, part):
    data = encode(Image.fromarray(np.tile(NOISE, (8, 8, 1))), kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DiffjaxError, match=rf"cut\.{kind.lower()}.*(PNG|JPEG)"):
        load_image(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damaged_bytes_give_an_image_or_a_diffjax_error(kind):
    data = encode(Image.fromarray(NOISE), kind)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 6):
            damaged[position] = rng.integers(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert load_image(bytes(damaged)).mode == "RGB"
            except DiffjaxError:
                refused += 1
    assert refused > 0


def test_files_that_are_no_images(tmp_path):
    text = tmp_path / "notes.png"
    text.write_text("not an image")
    empty = tmp_path / "empty.png"
    empty.touch()
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path, message in [
        (text, "notes.png' is not an image.*PNG or JPEG"),
        (empty, "empty.png' is empty"),
        (tmp_path / "none.png", r"no image .*none\.png"),
        (tmp_path, "is a folder"),
        (pipe, "not a regular file"),
        ("bad\0name.png", "name.png"),
        ("x" * 5000, "x{200} cannot be read"),
    ]:
        with pytest.raises(DiffjaxError, match=message):
            load_image(path)
    with pytest.raises(DiffjaxError, match="0 bytes"):
        load_image(b"")


def test_postscript_is_not_executed():
    with pytest.raises(DiffjaxError, match="not an image"):
        load_image(encode(Image.fromarray(NOISE), "EPS"))


def test_decompression_bomb_is_refused_from_its_header(monkeypatch):
    def decode(*_):
        raise AssertionError("the bomb was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    for side in (9_000, 10_000, 40_000):  # without and with Pillow's own objections
        with (
            warnings.catch_warnings(),
            pytest.raises(
                DiffjaxError, match=rf"{side}×{side}.*limit of 67,108,864.*-max"
            ),
        ):
            warnings.simplefilter("error")
            load_image(png_header(side, side))


def test_photographs_of_108_and_200_megapixels_are_read_at_half_their_size(tmp_path):
    smooth = Image.fromarray(NOISE).resize((60, 40), Image.Resampling.BICUBIC)
    large = smooth.resize((1200, 800), Image.Resampling.BICUBIC)
    data = encode(large, "JPEG", quality=95)
    limit = 1200 * 800 // 4  # as many as are left at half the size
    with pytest.warns(UserWarning, match="1 megapixels and is read at half"):
        half = load_image(data, max_pixels=limit)
    assert half.size == (600, 400)
    whole = load_image(data)
    assert whole.size == (1200, 800)  # under the limit all pixels are decoded
    a, b = (preprocess(image, 64) for image in (whole, half))
    assert np.abs(a - b).max() < 0.05  # of a range of 2
    for refused in (data, encode(large, "PNG")):
        with pytest.raises(DiffjaxError, match="over the limit"):
            load_image(refused, max_pixels=limit - 1)


def test_the_limits_hold_todays_phones():
    sides = [(12_000, 9_000), (16_320, 12_240)]
    assert all(images.MAX_PIXELS < w * h <= 4 * images.MAX_PIXELS for w, h in sides)


@pytest.mark.slow
def test_a_photograph_of_200_megapixels_takes_bounded_memory(tmp_path):
    path = tmp_path / "large.jpg"
    row = Image.fromarray(NOISE).resize((16_320, 12_240), Image.Resampling.NEAREST)
    row.save(path, quality=70)
    del row
    code = (
        "import resource, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from diffjax.data.images import load_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert load_image(sys.argv[1]).size == (8160, 6120)\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print((after - before) / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 500  # MiB; the decoded half is 143


def test_max_pixels_is_a_limit_that_can_be_moved():
    with pytest.raises(DiffjaxError, match="over the limit of 239 "):
        load_image(NOISE, max_pixels=239)
    assert load_image(NOISE, max_pixels=240).size == (20, 12)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_too_small(size):
    with pytest.raises(DiffjaxError, match="at least 2"):
        load_image(Image.new("RGB", size))


def test_too_elongated():
    assert load_image(Image.new("RGB", (4, 200))).size == (4, 200)
    with pytest.raises(DiffjaxError, match="50 times as long"):
        load_image(Image.new("RGB", (4, 201)))


def test_pillows_switches_stay_as_they_were():
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    load_image(encode(Image.fromarray(NOISE), "JPEG"))
    with pytest.raises(DiffjaxError):
        load_image(png_header(40_000, 40_000))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before


# Damage
def chunks(data):
    """(kind, start, end) of the chunks of a PNG file."""
    place = 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8], place, place + 12 + length
        place += 12 + length


def with_text():
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "noise", zip=True)
    exif = Image.Exif()
    exif[0x0112] = 1
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return encode(
        Image.fromarray(NOISE), "PNG", pnginfo=text, exif=exif, icc_profile=profile
    )


@pytest.mark.parametrize("kind", [b"zTXt", b"eXIf", b"iCCP"])
@pytest.mark.parametrize("part", ["checksum", "content"])
def test_damaged_metadata_are_not_a_damaged_png(kind, part):
    data = bytearray(with_text())
    [(start, end)] = [(s, e) for k, s, e in chunks(data) if k == kind]
    data[end - 1 if part == "checksum" else (start + end) // 2] ^= 0x55
    with pytest.warns(UserWarning, match=rf"metadata are damaged .*{kind.decode()}"):
        image = load_image(bytes(data))
    np.testing.assert_array_equal(np.asarray(image), NOISE)


def test_a_text_that_would_fill_the_memory_is_not_read():
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "x" * 2**24, zip=True)
    data = encode(Image.fromarray(NOISE), "PNG", pnginfo=text)
    with pytest.warns(UserWarning, match="metadata are damaged"):
        image = load_image(data)
    np.testing.assert_array_equal(np.asarray(image), NOISE)


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE", b"tRNS"])
def test_a_damaged_chunk_of_the_picture_is_a_damaged_png(kind):
    image = Image.fromarray(NOISE).quantize(16)
    data = bytearray(encode(image, "PNG", transparency=0))
    [end] = [e for k, _, e in chunks(data) if k == kind]
    data[end - 5] ^= 1
    with pytest.raises(DiffjaxError, match=f"bad checksum in {kind.decode()}"):
        load_image(bytes(data))


def segment(kind, content):
    return bytes([0xFF, kind]) + struct.pack(">H", len(content) + 2) + content


@pytest.mark.parametrize(
    "junk",
    [
        segment(0xE1, b"Exif\0\0" + b"\xff" * 50),
        segment(0xE1, b"Exif\0\0II*\0" + b"\x08\0\0\0" + b"\xff" * 60),
        segment(0xE1, b"Exif\0\0"),
        segment(0xE0, b"JFIF\0"),
        segment(0xE2, b"ICC_PROFILE\0\x05\x01junk"),
        segment(0xE2, b"MPF\0" + b"\xff" * 40),
        segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\xff\xff"),
        segment(0xFE, b"\xff\xd9"),
    ],
)
def test_damaged_metadata_are_not_a_damaged_jpeg(junk):
    data = encode(Image.fromarray(NOISE), "JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = load_image(data[:2] + junk + data[2:])
    np.testing.assert_array_equal(np.asarray(image), np.asarray(load_image(data)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize(
    "load", [load_image, lambda d: decode_plain(io.BytesIO(d), "x")]
)
def test_what_is_cut_is_never_read(kind, load):
    picture = Image.fromarray(NOISE).resize((200, 120))
    data = encode(picture, kind)
    for share in (0.02, 0.3, 0.5, 0.7, 0.9, 0.97):
        with pytest.raises(DiffjaxError):
            load(data[: int(share * len(data))])
