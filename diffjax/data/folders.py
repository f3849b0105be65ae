"""A folder of images, one sub-folder per class."""

import os
from pathlib import Path

from PIL import Image

from diffjax.data.files import ALL, FileSource, ImageFile, load_upright
from diffjax.data.imagenet import imagenet_classes
from diffjax.data.images import FORMATS
from diffjax.errors import DiffjaxError
from diffjax.files import user_path


def open_folder(path: str | os.PathLike[str]) -> FileSource:
    """Open a folder whose sub-folders are the classes.

    The classes are the sub-folders in sorted order; their images are all files in
    them, at any depth, whose suffix Pillow knows (.jpg, .png, .webp and so on), in
    sorted order. An image's id is its path below the folder. What begins with a dot
    is left out. Images are turned by their EXIF orientation. Sub-folders called by
    WordNet ids, as ImageNet's are, make ``model_classes`` known.

    Raises:
        DiffjaxError: if there is no such folder, or no image in one of its classes,
            or images lie beside the sub-folders.
    """
    folder = user_path(path)
    if not folder.is_dir():
        raise DiffjaxError(f"There is no folder {folder}. Check the path.")
    suffixes = frozenset(
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind in FORMATS
    )
    entries = sorted(e for e in folder.iterdir() if not e.name.startswith("."))
    stray = [e for e in entries if e.is_file() and e.suffix.lower() in suffixes]
    if stray:
        raise DiffjaxError(
            f"{folder} holds images beside its sub-folders ({stray[0].name}). Each "
            "image must lie in the sub-folder of its class."
        )
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        raise DiffjaxError(
            f"{folder} holds no sub-folders. Give each class a sub-folder with its "
            "images, or list paths and labels in a CSV file."
        )
    files: list[ImageFile] = []
    for label, place in enumerate(classes):
        found = _images(place, suffixes)
        if not found:
            raise DiffjaxError(
                f"{place} holds no images. Remove it if it is not a class."
            )
        files += [
            ImageFile(path=p, label=label, id=p.relative_to(folder).as_posix())
            for p in found
        ]
    names = tuple(place.name for place in classes)
    return FileSource(
        name=str(path),
        split=ALL,
        class_names=names,
        files=files,
        load=load_upright,
        model_classes=imagenet_classes(names),
    )


def _images(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """The images in a folder and below it, in sorted order."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(place, name) for name in names if not name.startswith(".")]
        found += [path for path in paths if path.suffix.lower() in suffixes]
    return sorted(found)
