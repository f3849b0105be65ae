"""FGVC Aircraft in the layout of its archive (Maji et al., arXiv 1306.5151).

    fgvc-aircraft-2013b/data/images/NUMBER.jpg
    fgvc-aircraft-2013b/data/variants.txt                     100 names, in label order
    fgvc-aircraft-2013b/data/images_variant_{train,val,trainval,test}.txt
                                                              lines "NUMBER VARIANT"

The bottom 20 pixels of every image are a banner with its copyright. It stays, as in
the readers that published accuracies were measured with; the centre crop removes it
in part.
"""

from pathlib import Path

from diffjax.data.files import FileSource, ImageFile, load_plain
from diffjax.data.sources import DataDir, data_root
from diffjax.errors import DiffjaxError, unknown
from diffjax.files import read_lines

FOLDER = "fgvc-aircraft-2013b"
SPLITS = ("train", "val", "trainval", "test")
ADDRESS = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"


def open_aircraft(split: str = "test", data_dir: DataDir = None) -> FileSource:
    """Open one split of FGVC Aircraft, with its 100 variants as classes.

    Args:
        split: "train", "val", "trainval" (both) or "test" (3,333 images).
        data_dir: the folder that holds fgvc-aircraft-2013b.

    Raises:
        DiffjaxError: if the split is unknown, or the data are not there or incomplete.
    """
    if split not in SPLITS:
        raise unknown("split of aircraft", split, SPLITS)
    data = data_root(data_dir) / FOLDER / "data"
    if not data.is_dir():
        raise DiffjaxError(
            f"There is no data set aircraft: {data} is missing. Fetch {FOLDER}.tar.gz "
            f"from {ADDRESS} and unpack it in {data.parents[1]}."
        )
    names = [line for line in _lines(data / "variants.txt") if line]
    label = {name: i for i, name in enumerate(names)}
    files = []
    listing = data / f"images_variant_{split}.txt"
    for number, line in enumerate(_lines(listing), 1):
        if not line:
            continue
        image, _, variant = line.partition(" ")
        if variant not in label:
            raise DiffjaxError(
                f"{listing}, line {number}: the variant {variant!r} does not stand in "
                f"variants.txt. Unpack {FOLDER}.tar.gz again."
            )
        path = data / "images" / f"{image}.jpg"
        files.append(ImageFile(path=path, label=label[variant], id=image))
    return FileSource(
        name="aircraft",
        split=split,
        class_names=tuple(names),
        files=files,
        load=load_plain,
    )


def _lines(path: Path) -> list[str]:
    try:
        return read_lines(path)
    except DiffjaxError as error:
        raise DiffjaxError(f"{error} Unpack {FOLDER}.tar.gz again.") from None
