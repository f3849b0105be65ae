"""Turn Fashion-MNIST's four files into a tensorflow-datasets directory.

    python scripts/prepare_fashion_mnist.py FOLDER --data-dir DIR

FOLDER holds train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the two of
t10k. They are on the data set's home page, https://github.com/zalandoresearch/fashion-mnist
(data/fashion), and in Debian's package dataset-fashion-mnist:

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb .
    python scripts/prepare_fashion_mnist.py usr/share/datasets/fashion-mnist \\
        --data-dir DIR

The result, DIR/fashion_mnist/3.0.1, has the catalogue's features and order of examples.
"""

import gzip
import hashlib
from pathlib import Path

import numpy as np
from tfds_writer import Split, prepare

CLASS_NAMES = [  # in label order
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]
VERSION = "3.0.1"  # the catalogue's
SIDE = 28
SPLITS = {"train": "train", "test": "t10k"}  # and how the files call them
KINDS = {"images": "images-idx3-ubyte.gz", "labels": "labels-idx1-ubyte.gz"}

# of the files' content, since packages compress it anew
KNOWN_SHA256 = {
    "train-images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def read_folder(folder: Path, any_digest: bool) -> tuple[dict[str, Split], list[str]]:
    """The train and test splits of the four files, and the class names.

    Raises:
        ValueError: a file is not what it should be.
        OSError, EOFError, zlib.error: a file is missing, cut off or damaged.
    """

    def content(prefix: str, kind: str) -> bytes:
        path = folder / f"{prefix}-{KINDS[kind]}"
        raw = gzip.decompress(path.read_bytes())
        digest = hashlib.sha256(raw).hexdigest()
        if not any_digest and digest != KNOWN_SHA256[f"{prefix}-{kind}"]:
            raise ValueError(
                f"{path} is not Fashion-MNIST's (MNIST's files have the same names); "
                "--any-digest reads it all the same"
            )
        return raw

    return {
        split: (
            read_idx(content(prefix, "images"), (SIDE, SIDE, 1), f"{prefix}-images"),
            read_idx(content(prefix, "labels"), (), f"{prefix}-labels"),
        )
        for split, prefix in SPLITS.items()
    }, CLASS_NAMES


def read_idx(raw: bytes, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Unsigned bytes [N, *shape] of the idx format.

    Two zeros, 8 for unsigned bytes, the number of axes, and the length of each axis
    as a big-endian 32-bit number come first. An axis of one channel is not counted.

    Raises:
        ValueError: it has another type, shape or length.
    """
    axes = 1 + len(shape[:2])
    sizes = np.frombuffer(raw[4 : 4 + 4 * axes], ">u4")
    values = np.frombuffer(raw, np.uint8)[4 + 4 * axes :]
    wanted = (*sizes[:1], *shape[:2])
    if raw[:4] != bytes([0, 0, 8, axes]) or tuple(sizes) != wanted:
        raise ValueError(f"{name} is not an idx file of bytes [N, {shape}]")
    if values.size != sizes.prod(dtype=np.int64):
        raise ValueError(f"{name} has {values.size} bytes, not {sizes.prod()}")
    return values.reshape(-1, *shape)


def main(arguments: list[str] | None = None) -> None:
    prepare(
        arguments,
        read_folder,
        description=__doc__,
        source="FOLDER",
        source_help="of the four files",
        dataset="fashion_mnist",
        version=VERSION,
    )


if __name__ == "__main__":
    main()
