"""Winoground: pairs of captions of the same words, and of images (arXiv 2204.03162).

The layout is that of its repository on the Hugging Face hub (facebook/winoground), with
the archive of images unpacked where it lies:

    data/examples.jsonl   {"id", "caption_0", "caption_1", "image_0", "image_1", "tag",
                           "secondary_tag", "collapsed_tag"}, and what is not read
    data/images/          the images, called image_0 or image_1 and .png
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffjax.errors import DiffjaxError
from diffjax.files import PathLike, read_json_lines, user_path

ADDRESS = "https://huggingface.co/datasets/facebook/winoground"


@dataclass(frozen=True, kw_only=True)
class WinogroundExample:
    """Two captions and two images; caption k belongs to image k.

    Attributes:
        id: the number of the example, as text.
        captions: caption_0 and caption_1.
        images: the files of image_0 and image_1.
        tag: what is swapped between the captions, finely.
        secondary_tag: a further property, or "".
        collapsed_tag: "Object", "Relation" or "Both".
    """

    id: str
    captions: tuple[str, str]
    images: tuple[Path, Path]
    tag: str
    secondary_tag: str
    collapsed_tag: str


def read_winoground(folder: PathLike) -> tuple[WinogroundExample, ...]:
    """Read the examples; images stay on disk.

    Args:
        folder: a copy of the repository, or its data folder.

    Raises:
        DiffjaxError: if examples.jsonl or an image is missing, the images are still
            packed, or a line is malformed.
    """
    root = user_path(folder)
    places = [root / "data", root]
    data = next((p for p in places if (p / "examples.jsonl").is_file()), None)
    if data is None:
        advice = (
            f"Accept the terms at {ADDRESS}, then fetch data/examples.jsonl and "
            "data/images.zip, from an earlier revision if the newest lacks them."
        )
        if packed := [*root.glob("test-*.parquet"), *root.glob("data/*.parquet")]:
            raise DiffjaxError(
                f"{packed[0]} is the form of Winoground that is not read here. {advice}"
            )
        raise DiffjaxError(f"{root} holds no data/examples.jsonl. {advice}")
    images = data / "images"
    if not images.is_dir():
        archive = data / "images.zip"
        advice = f"Fetch data/images.zip from {ADDRESS} and unpack it there."
        if archive.is_file():
            advice = f"Unpack them with: unzip {archive} -d {data}"
        raise DiffjaxError(f"The folder {images} is missing. {advice}")
    path = data / "examples.jsonl"
    examples = tuple(
        _example(fields, images, where) for where, fields in read_json_lines(path)
    )
    if not examples:
        raise DiffjaxError(f"{path} holds no examples. Fetch it again.")
    return examples


def _example(fields: dict[str, Any], images: Path, where: str) -> WinogroundExample:
    def field(name: str, kind: type = str) -> Any:
        value = fields.get(name)
        if not isinstance(value, kind):
            wanted = "a text" if kind is str else "a whole number"
            raise DiffjaxError(
                f"{where}: {name} must be {wanted}, not {value!r}. Fetch "
                "examples.jsonl again."
            )
        return value

    return WinogroundExample(
        id=str(field("id", int)),
        captions=(field("caption_0"), field("caption_1")),
        images=(
            _image(images, field("image_0"), where),
            _image(images, field("image_1"), where),
        ),
        tag=field("tag"),
        secondary_tag=field("secondary_tag"),
        collapsed_tag=field("collapsed_tag"),
    )


def _image(images: Path, name: str, where: str) -> Path:
    """The file of an image; published names lack the suffix."""
    for path in (images / f"{name}.png", images / name):
        if os.path.isfile(path):  # of Path one raises for a name too long
            return path
    raise DiffjaxError(
        f"{where}: there is no image {images / name}.png. Unpack images.zip again."
    )
