"""ObjectNet in the layout of its archive (Barbu et al., NeurIPS 2019).

    objectnet-1.0/images/FOLDER/NAME.png
    objectnet-1.0/mappings/folder_to_objectnet_label.json     {folder: label}
    objectnet-1.0/mappings/objectnet_to_imagenet_1k.json      {label: "a; b"}
    objectnet-1.0/mappings/imagenet_to_label_2012_v2          a line per ImageNet label
    objectnet-1.0/mappings/pytorch_to_imagenet_2012_id.json   {class of models: line}

Only the 113 of its 313 classes that ImageNet has too are used. They are numbered in the
order of their folders' names, as in published evaluations and prompt files. Each
image has a red border of 2 pixels, which marks it as test data and is cropped.
"""

import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from diffjax.data.files import FileSource, ImageFile, load_plain
from diffjax.data.sources import DataDir, data_root
from diffjax.errors import DiffjaxError, unknown
from diffjax.files import read_json_object, read_lines

FOLDER = "objectnet-1.0"
BORDER = 2  # pixels on each side
ADDRESS = "https://objectnet.dev/download.html"


def open_objectnet(split: str = "test", data_dir: DataDir = None) -> FileSource:
    """Open the part of ObjectNet whose classes ImageNet has.

    Args:
        split: "test"; there is no other.
        data_dir: the folder that holds objectnet-1.0.

    Raises:
        DiffjaxError: if the split is unknown, or the data are not there or incomplete.
    """
    if split != "test":
        raise unknown("split of objectnet", split, ["test"])
    root = data_root(data_dir) / FOLDER
    if not root.is_dir():
        raise DiffjaxError(
            f"There is no data set objectnet: {root} is missing. Fetch {FOLDER}.zip "
            f"from {ADDRESS} (the page gives its password) and unpack it in "
            f"{root.parent}."
        )
    mappings = root / "mappings"
    label_of = _read_json(mappings / "folder_to_objectnet_label.json")
    overlap = _read_json(mappings / "objectnet_to_imagenet_1k.json")
    ids = _imagenet_ids(mappings)

    folders = sorted(folder for folder, label in label_of.items() if label in overlap)
    if not folders:
        raise _damaged(mappings, "they map no class to ImageNet")
    files = []
    model_classes = []
    for index, folder in enumerate(folders):
        names = overlap[label_of[folder]].split("; ")
        if unmapped := [name for name in names if name not in ids]:
            raise _damaged(mappings, f"they map no ImageNet label {unmapped[0]!r}")
        model_classes.append(tuple(ids[name] for name in names))
        place = root / "images" / folder
        images = sorted(place.glob("*.png")) if os.path.isdir(place) else []
        if not images:
            raise _damaged(place, "it holds no images")
        files += [
            ImageFile(path=image, label=index, id=f"{folder}/{image.name}")
            for image in images
        ]
    return FileSource(
        name="objectnet",
        split=split,
        class_names=tuple(label_of[folder] for folder in folders),
        files=files,
        load=load_without_border,
        model_classes=tuple(model_classes),
    )


def load_without_border(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image less the red border.

    Raises:
        DiffjaxError: if the file cannot be decoded, or holds nothing but border.
    """
    inner = load_plain(path)[BORDER:-BORDER, BORDER:-BORDER]
    if inner.size == 0:
        raise _damaged(path, "it is smaller than its border")
    return inner


def _imagenet_ids(mappings: Path) -> dict[str, int]:
    """The class id in ImageNet models, 0 to 999, of each ImageNet label."""
    path = mappings / "imagenet_to_label_2012_v2"
    try:
        labels = read_lines(path)
    except DiffjaxError as error:
        raise _damaged(path, str(error)) from error
    line_of = _read_json(mappings / "pytorch_to_imagenet_2012_id.json")
    try:
        return {labels[int(line)]: int(i) for i, line in line_of.items()}
    except (ValueError, IndexError) as error:
        raise _damaged(mappings, f"their ImageNet ids do not fit ({error})") from error


def _read_json(path: Path) -> dict[str, str]:
    try:
        content = read_json_object(path)
    except DiffjaxError as error:
        raise _damaged(path, str(error)) from error
    return {key: str(value) for key, value in content.items()}


def _damaged(path: Path, why: str) -> DiffjaxError:
    return DiffjaxError(f"{path} cannot be used: {why}. Unpack {FOLDER}.zip again.")
