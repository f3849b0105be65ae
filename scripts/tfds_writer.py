"""Images in memory become a tensorflow-datasets directory, without tensorflow.

What the preparing scripts share: their command line, and the writing.
"""

import argparse
import io
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffjax.data.tfds import package

Split = tuple[np.ndarray, np.ndarray]  # images uint8 [N, H, W, C], labels int [N]


DAMAGED = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error)


def prepare(
    arguments: Sequence[str] | None,
    read: Callable[[Path, bool], tuple[dict[str, Split], Sequence[str]]],
    *,
    description: str,
    source: str,
    source_help: str,
    dataset: str,
    **catalogue: Any,
) -> None:
    """The command line of a script: read a download, write the data set, or exit.

    Args:
        arguments: of the command line; None for the program's own.
        read: the download's path, and whether unknown digests are accepted, to splits
            and class names in label order; raises one of ``DAMAGED``.
        description: of the script.
        source: what the download is, for the usage line.
        source_help: likewise, in words.
        dataset: as of ``write_arrays``.
        catalogue: the rest of its keywords.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar=source, help=source_help)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path.home() / "tensorflow_datasets",
        help="the tensorflow-datasets folder to write to (default %(default)s)",
    )
    parser.add_argument(
        "--any-digest", action="store_true", help="accept a download that is not known"
    )
    options = parser.parse_args(arguments)
    data_dir = options.data_dir.expanduser().absolute()
    try:
        splits, names = read(options.source, options.any_digest)
        target = write_arrays(
            splits, data_dir, dataset=dataset, class_names=names, **catalogue
        )
    except DAMAGED as error:
        sys.exit(f"prepare_{dataset}: {error}")
    counts = (f"{len(labels)} {split}" for split, (_, labels) in splits.items())
    print(f"{target}: {', '.join(counts)} images")


def write_arrays(
    splits: Mapping[str, Split],
    data_dir: Path,
    *,
    dataset: str,
    version: str,
    class_names: Sequence[str],
    ids: bool = False,
) -> Path:
    """Write data_dir/dataset/version, in array_record.

    Args:
        splits: by their names; examples keep their order (tensorflow-datasets
            shuffles by the index, so equal arrays make equal files).
        data_dir: the folder of all data sets.
        dataset: the catalogue's name of this one.
        version: likewise.
        class_names: in label order.
        ids: whether examples have one, SPLIT_00042.

    Returns:
        The folder, which must not exist before.

    Raises:
        ValueError: it does, images and labels do not fit, or tensorflow-datasets is
            not installed.
    """
    tfds = package(dataset)

    for split, (images, labels) in splits.items():
        if not len(images) == len(labels) > 0:
            raise ValueError(f"{split}: {len(images)} images, {len(labels)} labels")
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise ValueError(f"{split}: labels outside 0 to {len(class_names) - 1}")
    shape = next(iter(splits.values()))[0].shape[1:]

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset
        VERSION = tfds.core.Version(version)

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(names=class_names),
            }
            if ids:
                features["id"] = tfds.features.Text()
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
            for index, (image, label) in enumerate(zip(*splits[split], strict=True)):
                example = {"image": encode_png(image), "label": int(label)}
                if ids:
                    example["id"] = f"{split}_{index:05d}"
                yield index, example

    target = data_dir / dataset / version
    if target.exists():
        raise ValueError(f"{target} exists already; remove it first")
    builder = Builder(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return target


def encode_png(image: np.ndarray) -> io.BytesIO:
    """tensorflow-datasets stores encoded bytes as they are; arrays need tensorflow."""
    buffer = io.BytesIO()
    grey = image.shape[-1] == 1
    Image.fromarray(image[..., 0] if grey else image).save(buffer, "PNG")
    buffer.seek(0)
    return buffer
