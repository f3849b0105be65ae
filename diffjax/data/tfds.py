"""tensorflow-datasets directories, read without tensorflow.

Nothing is downloaded or prepared here, and no network is tried.
"""

import difflib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from diffjax.data.files import decode_plain
from diffjax.data.imagenet import imagenet_classes
from diffjax.data.sources import DataDir, Example, data_root, digest
from diffjax.errors import DiffjaxError, optional
from diffjax.files import read_json_object

# The split that is meant when none is named: the first that there is, but the test
# images of these sets have no labels.
DEFAULT_SPLITS = ("test", "validation")
UNLABELLED_TEST = frozenset({"imagenet2012", "places365_small"})

# of this repository, for sets that tensorflow-datasets would need tensorflow for
_SCRIPTS = {
    "cifar10": "prepare_cifar10.py ARCHIVE",
    "fashion_mnist": "prepare_fashion_mnist.py FOLDER",
    "quickdraw": "prepare_quickdraw.py ARCHIVE",
}
_READ_AT_ONCE = 64  # examples: amortises a call, bounds the memory
_SAMPLE = 16  # examples, evenly spread, in the fingerprint
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAMES = ("id", "file_name")  # features that name an image


class TfdsSource:
    """One split of a prepared tensorflow-datasets directory, in its stored order.

    tensorflow-datasets shuffles when it prepares; ``Example.id`` tells the first place.
    The fingerprint covers the names of the classes, the numbers of examples and of
    bytes, and the content of a few examples.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str,
        records: Any,
        features: dict[str, Any],
        n_bytes: int,
    ) -> None:
        """Take a data source of raw records and the features to decode them with.

        Raises:
            DiffjaxError: if the records cannot be read.
        """
        tfds = package(name)
        self.name = name
        self.split = split
        self.class_names = tuple(map(str, features["label"].names))
        self.model_classes = imagenet_classes(self.class_names)
        self._records = records
        # Other features, such as the masks of Oxford-IIIT Pets, are never decoded.
        wanted = ("image", "label", *_NAMES)
        self._features = tfds.features.FeaturesDict(
            {key: features[key] for key in wanted if key in features}
        )
        self._label = tfds.features.FeaturesDict({"label": features["label"]})
        # Encoded images are left to Pillow, as everywhere else in this package.
        self._decoders = {"image": tfds.decode.SkipDecoding()}
        sample = sorted({i * len(self) // _SAMPLE for i in range(_SAMPLE)})
        self.fingerprint = digest(
            [*self.class_names, f"{len(self)} {n_bytes}", *self._read(sample)]
        )

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """The example at an index in [0, len), decoded now."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} {self.split} has no example {index}.")
        return self._decode(index, self._read([index])[0])

    def __iter__(self) -> Iterator[Example]:
        """All examples in order; faster than one at a time, since read in runs."""
        return (self._decode(index, record) for index, record in self._stored())

    def labels(self) -> Int32[np.ndarray, " n"]:
        """The label of each example, in order; images are read but not decoded.

        Raises:
            DiffjaxError: if an example has none.
        """
        labels = np.empty(len(self), np.int32)
        for index, record in self._stored():
            try:
                label = int(self._label.deserialize_example_np(record)["label"])
            except Exception as error:
                raise self._broken(f"{index}", error) from error
            labels[index] = self._checked(index, label)
        return labels

    def _stored(self) -> Iterator[tuple[int, bytes]]:
        """All indices and records in order."""
        for start in range(0, len(self), _READ_AT_ONCE):
            run = range(start, min(start + _READ_AT_ONCE, len(self)))
            yield from zip(run, self._read(run), strict=True)

    def _read(self, indices: Sequence[int]) -> Sequence[bytes]:
        """The stored records at indices."""
        try:
            records: Sequence[bytes] = self._records.__getitems__(list(indices))
        except Exception as error:  # the readers raise nearly anything on damage
            which = f"{indices[0]} to {indices[-1]}" if indices[1:] else f"{indices[0]}"
            raise self._broken(which, error) from error
        return records

    def _decode(self, index: int, record: bytes) -> Example:
        which = f"{index}"
        try:
            stored = self._features.deserialize_example_np(
                record, decoders=self._decoders
            )
            name = next((stored[key] for key in _NAMES if key in stored), None)
            if name is None:
                name = f"{self.split}_{index:05d}"
            name = name.decode() if isinstance(name, bytes) else str(name)
            which = f"{index} ({name})"
            # Plain RGB, no EXIF rotation: published accuracies were measured so.
            pixels = decode_plain(io.BytesIO(stored["image"]), which)
        except Exception as error:  # decoders raise nearly anything on damage
            raise self._broken(which, error) from error
        label = self._checked(index, int(stored["label"]))
        return Example(image=pixels, label=label, id=name)

    def _checked(self, index: int, label: int) -> int:
        if not 0 <= label < len(self.class_names):
            raise DiffjaxError(
                f"{self.name} {self.split}: example {index} has no label ({label}). "
                "Choose a split with labels."
            )
        return label

    def _broken(self, which: str, error: Exception) -> DiffjaxError:
        return DiffjaxError(
            f"{self.name} {self.split}: example {which} cannot be read ({error}). "
            "Prepare the data set again."
        )


def package(dataset: str) -> Any:
    """Import tensorflow-datasets, which takes most of a second, to read a data set.

    Raises:
        DiffjaxError: if it or the reader of its files is not installed.
    """
    purpose = f"The data set {dataset}"
    instead = "A folder or table is given by its path, as in ./photos or list.csv."
    tfds = optional("tensorflow_datasets", purpose, instead)
    optional("array_record", purpose, instead)  # else found missing on reading
    return tfds


def open_tfds(
    name: str, split: str | None = None, data_dir: DataDir = None
) -> TfdsSource:
    """Open one split of a data set that was prepared as array_record.

    Any set will do that has an image under "image" and a class under "label".

    Args:
        name: as in its catalogue: "cifar10", "name/config", or "name:1.0.0". Without a
            version the newest one on disk is taken.
        split: a split or a slice of one: "test", "train[:100]", "train[50%:]". By
            default the test split, or validation where there is no labelled test.
        data_dir: the folder that holds the data sets; ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets`` by default.

    Raises:
        DiffjaxError: if tensorflow-datasets is not installed, or the data set is not
            there, is stored in another file format, has no such split, or is not one
            of labelled images.
    """
    tfds = package(name)
    root = data_root(data_dir)
    folder = _find(name, root)
    _check_format(folder, name)

    try:
        builder = tfds.builder_from_directory(folder)
        features = dict(builder.info.features.items())
    except Exception as error:  # a damaged features.json raises nearly anything
        raise DiffjaxError(
            f"{folder} cannot be read ({error}). Prepare the data set again."
        ) from error
    wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for key, kind in wanted.items():
        if not isinstance(features.get(key), kind):
            raise DiffjaxError(
                f"{folder} is not a set of labelled images: it has the features "
                f"{', '.join(sorted(features))}, and needs image and label."
            )
    splits = ", ".join(builder.info.splits) or "none"
    if split is None:
        split = _default_split(name, list(builder.info.splits))
    if split is None:
        raise DiffjaxError(
            f"{folder} has neither of the splits {' and '.join(DEFAULT_SPLITS)}. Name "
            f"one of: {splits}."
        )
    try:
        records = builder.as_data_source(
            split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        count = len(records)
    except Exception as error:
        raise DiffjaxError(
            f"Cannot open the split {split!r} of {folder} ({error}). Its splits are: "
            f"{splits}; a slice is written as in 'test[:100]'."
        ) from error
    if count == 0:
        raise DiffjaxError(f"The split {split!r} of {folder} holds no examples.")
    return TfdsSource(
        name=name,
        split=split,
        records=records,
        features=features,
        n_bytes=int(builder.info.dataset_size),
    )


def _default_split(name: str, splits: Sequence[str]) -> str | None:
    for split in DEFAULT_SPLITS:
        if split in splits and not (split == "test" and _base(name) in UNLABELLED_TEST):
            return split
    return None


def _base(name: str) -> str:
    """The data set's name without configuration and version."""
    return name.partition(":")[0].partition("/")[0]


def _find(name: str, root: Path) -> Path:
    """The newest (or the named) version's folder: root/name[/config]/version."""
    dataset, _, version = name.partition(":")
    parent = root / dataset
    found = {
        path.parent.name: path.parent for path in parent.glob("*/dataset_info.json")
    }
    versions = sorted(
        (v for v in found if _VERSION.fullmatch(v)),
        key=lambda v: tuple(map(int, v.split("."))),
    )
    if version in versions:
        return found[version]
    if versions and not version:
        return found[versions[-1]]
    configs = sorted({p.parts[-3] for p in parent.glob("*/*/dataset_info.json")})
    if versions:
        advice = f"Versions on disk: {', '.join(versions)}."
    elif configs:
        advice = (
            f"Name a configuration: {', '.join(f'{dataset}/{c}' for c in configs)}."
        )
    else:
        advice = _how_to_prepare(name, root)
    raise DiffjaxError(f"There is no data set {name} in {root}. {advice}")


def _check_format(folder: Path, name: str) -> None:
    try:
        info = read_json_object(folder / "dataset_info.json")
    except DiffjaxError as error:
        raise DiffjaxError(f"{error} Prepare the data set again.") from None
    stored = info.get("fileFormat", "tfrecord")  # absent in old directories
    if stored != "array_record":
        raise DiffjaxError(
            f"{folder} is stored as {stored}, which only tensorflow reads. Prepare it "
            f"once more in another folder. {_how_to_prepare(name, Path('FOLDER'))}"
        )


def _how_to_prepare(name: str, root: Path) -> str:
    """What to do, as the catalogue has it; asking the catalogue needs no network."""
    if script := _SCRIPTS.get(_base(name)):
        return f"Prepare it with: python scripts/{script} --data-dir {root}"

    tfds = package(name)
    known = tfds.list_builders(with_community_datasets=False)
    if _base(name) not in known:
        alike = difflib.get_close_matches(_base(name), known, n=3)
        hint = f" (did you mean {' or '.join(alike)}?)" if alike else ""
        return (
            f"Nor has the catalogue of tensorflow-datasets one of that name{hint}. A "
            "folder or table is given by its path, as in ./photos or list.csv."
        )
    builder = tfds.builder_cls(_base(name))
    configs = [config.name for config in builder.BUILDER_CONFIGS]
    dataset, _, version = name.partition(":")
    if configs and "/" not in dataset:
        dataset += f"/{configs[0]}"
    target = f"{dataset}:{version}" if version else dataset
    steps = ["Many sets need tensorflow for this step."]
    if len(configs) > 1:
        steps.append(f"Its configurations are: {', '.join(configs)}.")
    if manual := builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        steps.append(f"It must be fetched by hand: {' '.join(manual.split())}")
        steps.append(f"The manual_dir is {root / 'downloads' / 'manual'}.")
    command = f"tfds build {target} --file_format array_record --data_dir {root}"
    return " ".join([*steps, f"Prepare it with: {command}"])
