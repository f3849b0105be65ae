"""Encoded pictures → Pillow's images: formats, sizes, and which damage counts.

Damage to what is said about a picture (EXIF, colour profiles, texts) is not damage to
the picture. Sizes are checked on headers. Pillow's global switches are neither asked
nor touched, so the limit on pixels is ours alone.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image, ImageFile

from diffjax.errors import DiffjaxError

MAX_PIXELS = 2**26  # 8192 × 8192: 200 MB once decoded
REDUCED = 4  # JPEG files of so many times the limit are decoded at half their size

# Only formats that Pillow decodes itself: EPS, for one, would start Ghostscript.
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "PPM",
    "JPEG2000",
    "AVIF",
    "MPO",
)

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # the rest is said of it
_JPEG = b"\xff\xd8\xff"
_ADOBE = 0xEE  # tells how colours are stored

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


def open_picture(
    stream: io.BytesIO | io.BufferedReader, name: str, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """A picture whose header has been read and whose size is within the limit.

    A JPEG file of up to ``REDUCED`` times as many pixels is set to be decoded at half
    its width and height, with a warning: phones take 108 and 200 megapixels.

    Args:
        stream: of the encoded picture, at its beginning.
        name: for messages.
        max_pixels: the most that are decoded.

    Raises:
        DiffjaxError: if it is of no known format, damaged or too large.
    """
    data = stream.read(len(_PNG))
    stream.seek(0)
    if data == _PNG:
        stream = io.BytesIO(_sound_chunks(stream.read(), name))
    try:
        image = _open(stream)
    except Exception as error:  # header parsers raise nearly anything on damage
        stream.seek(0)
        bare = _without_metadata(stream.read())
        try:
            image = None if bare is None else _open(io.BytesIO(bare))
        except Exception:
            image = None
        if image is None:
            raise damaged(name, error) from error
        _tell_of_metadata(name, str(error))
    if image is None:
        raise DiffjaxError(
            f"{name} is not an image in a format that is read here "
            f"({', '.join(FORMATS)}). Convert it to PNG or JPEG."
        )
    _fit(image, name, max_pixels)
    return image


def check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Refuse a picture of more pixels than the limit."""
    width, height = size
    if width * height > max_pixels:
        raise DiffjaxError(
            f"{name} is {width}×{height} pixels, over the limit of {max_pixels:,} "
            "pixels, and was not decoded. Scale it down; if you trust it, raise the "
            "limit (max_pixels, --max-pixels)."
        )


def upright(image: Image.Image, name: str) -> Image.Image:
    """The image turned as its EXIF orientation says; damaged EXIF says nothing."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:  # anything may stand there
        _tell_of_metadata(name, f"EXIF: {error}")
        return image
    return image if turn is None else image.transpose(turn)


def damaged(name: str, error: Exception) -> DiffjaxError:
    """The error for a picture that cannot be decoded."""
    return DiffjaxError(
        f"{name} cannot be decoded ({error}): it is truncated, damaged or of an "
        "unsupported kind. Fetch it again, or re-save it as PNG or JPEG."
    )


def _open(stream: io.BytesIO | io.BufferedReader) -> ImageFile.ImageFile | None:
    """What Image.open does, less its limit on pixels, which is a global switch."""
    Image.init()  # registers the plug-ins; some are absent from some Pillow builds
    prefix = stream.read(16)
    for kind in FORMATS:
        if kind not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[kind]
        # a text says why the format is not read by this build
        accepted = accept is None or accept(prefix)
        if not accepted or isinstance(accepted, str):
            continue
        stream.seek(0)
        try:
            return factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            if kind in ("JPEG", "PNG"):
                raise  # surely of this format
    return None


def _fit(image: Image.Image, name: str, max_pixels: int) -> None:
    """Check the size, and have large JPEG files decoded at half of it."""
    width, height = image.size
    is_jpeg = image.format in ("JPEG", "MPO")
    if is_jpeg and max_pixels < width * height <= REDUCED * max_pixels:
        image.draft("RGB", (width // 2, height // 2))
        warnings.warn(
            f"{name} has {width * height / 1e6:.0f} megapixels and is read at half its "
            "width and height.",
            stacklevel=4,
        )
    check_pixels(image.size, name, max_pixels)


class _Part(NamedTuple):
    """A chunk of a PNG file, or a segment of a JPEG file."""

    kind: bytes
    data: bytes  # all of it, with its length and checksum
    sound: bool = True


def _sound_chunks(data: bytes, name: str) -> bytes:
    """A PNG file without the damaged chunks that are not of the picture.

    Raises:
        DiffjaxError: if a chunk of the picture does not fit its checksum. Pillow looks
            at those of headers alone.
    """
    parts = list(_chunks(data))
    broken = [part.kind for part in parts if not part.sound]
    if not broken:
        return data
    for kind in broken:
        if kind in _PNG_PICTURE:
            what = f"bad checksum in {kind.decode('ascii', 'backslashreplace')}"
            raise damaged(name, ValueError(what))
    names = ", ".join(kind.decode("ascii", "backslashreplace") for kind in broken)
    _tell_of_metadata(name, f"bad checksum in {names}")
    return _PNG + b"".join(part.data for part in parts if part.sound)


def _chunks(data: bytes) -> Iterator[_Part]:
    """The chunks of a PNG file; one that is cut is given as it is."""
    place = len(_PNG)
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4].rjust(4, b"\xff"))
        end = place + 12 + length
        kind = data[place + 4 : place + 8]
        whole = data[place:end]
        if len(whole) < 12 + length:  # cut: Pillow says where
            yield _Part(kind, whole)
            return
        sound = whole[-4:] == struct.pack(">I", zlib.crc32(whole[4:-4]))
        yield _Part(kind, whole, sound)
        place = end


def _segments(data: bytes) -> Iterator[_Part]:
    """The segments of a JPEG file before its scans, then the rest."""
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        kind = data[place + 1]
        if kind == 0xFF:  # padding
            place += 1
            continue
        if kind == 0xDA or 0xD0 <= kind <= 0xD9:
            break
        (length,) = struct.unpack(">H", data[place + 2 : place + 4])
        yield _Part(bytes([kind]), data[place : place + 2 + length])
        place += 2 + length
    yield _Part(b"", data[place:])


def _without_metadata(data: bytes) -> bytes | None:
    """A PNG or JPEG file with nothing but its picture; None for other formats."""
    if data.startswith(_PNG):
        parts = (part for part in _chunks(data) if part.kind in _PNG_PICTURE)
        return _PNG + b"".join(part.data for part in parts)
    if data.startswith(_JPEG):
        return _JPEG[:2] + b"".join(
            part.data for part in _segments(data) if not _is_metadata(part.kind)
        )
    return None


def _is_metadata(kind: bytes) -> bool:
    """Whether a JPEG segment is of an application (but Adobe's) or a comment."""
    return kind == b"\xfe" or (
        kind != b"" and 0xE0 <= kind[0] <= 0xEF and kind[0] != _ADOBE
    )


def _tell_of_metadata(name: str, why: str) -> None:
    warnings.warn(
        f"{name}: its metadata are damaged ({why}) and are not used.", stacklevel=4
    )
