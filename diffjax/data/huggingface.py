"""Data sets of the Hugging Face library ``datasets``, from disk, its cache or the hub.

    hf:./folder[:SPLIT]        what save_to_disk wrote, a folder of images or of parquet
    hf:./file.parquet          one file
    hf:NAME[:CONFIG][:SPLIT]   a name on the hub

A data set of the hub is taken from the library's cache where it is there. What is not
is downloaded, and a warning says so first. The library, from version 4 on, runs no code
of a data set.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from diffjax.data.files import ALL
from diffjax.data.imagenet import imagenet_classes
from diffjax.data.images import load_image
from diffjax.data.labels import numbered
from diffjax.data.sources import Example, Source, digest
from diffjax.errors import OPTIONAL, DiffjaxError, optional, unknown
from diffjax.files import user_path

if TYPE_CHECKING:
    import datasets

PREFIX = "hf:"
DEFAULT_SPLITS = ("test", "validation")
LABEL = "label"  # what a column of labels is called where no type tells it
_SAMPLE = 16  # images, evenly spread, in the fingerprint
_COLON = re.compile(r":(?![^\[]*\])")  # not those of a slice, as in test[:100]
_PLAIN = re.compile(r"u?int(8|16|32|64)|(large_)?string")


class HuggingFaceSource(Source):
    """Images and labels of a ``datasets.Dataset``; an image is decoded when asked for.

    The fingerprint covers the classes, all labels and some images.
    """

    def __init__(
        self,
        dataset: "datasets.Dataset",
        name: str,
        split: str = ALL,
        *,
        image_column: str | None = None,
        label_column: str | None = None,
        class_names: Sequence[str] | None = None,
        max_pixels: int | None = None,
    ) -> None:
        """Find the columns, and read all labels.

        Args:
            dataset: of one split.
            name: what the source is called.
            split: what the split is called.
            image_column: of images; by default the only one of the type Image.
            label_column: of labels, numbers or texts; by default the only one of the
                type ClassLabel, else the one called label.
            class_names: of numbers that have no names; as for ``labels.numbered``.
            max_pixels: as for ``load_image``.

        Raises:
            DiffjaxError: if there are no such columns, or an image has no label.
        """
        import datasets

        self.name = name
        self.split = split
        if not len(dataset):
            raise DiffjaxError(f"{self._which} holds no images.")
        image = self._image_column(dataset.features, image_column)
        label = self._label_column(dataset.features, label_column)
        kind = dataset.features[label]
        try:
            plain = dataset.with_format(None)
            numbers = plain[label][:]
        except Exception as error:  # the library's readers raise nearly anything
            raise DiffjaxError(
                f"The labels of {self._which} cannot be read ({_line(error)})."
            ) from error
        if isinstance(kind, datasets.ClassLabel):
            if class_names is not None:
                raise DiffjaxError(
                    f"The classes of {self._which} have names of their own: leave "
                    "class_names out."
                )
            class_names = list(kind.names)
            if wrong := [name for name in class_names if not isinstance(name, str)]:
                raise DiffjaxError(
                    f"{self._which} is damaged: the name of a class is {wrong[0]!r}, "
                    "which is no text. Make it anew, or download it again."
                )
            if missing := [i for i, n in enumerate(numbers) if n is None or n < 0]:
                raise DiffjaxError(
                    f"{self._which}: example {missing[0]} has no label. Choose a split "
                    "with labels."
                )
        where = (f"{self._which}, example {i}" for i in range(len(numbers)))
        names, found = numbered(zip(where, numbers, strict=False), class_names)
        self.class_names = names
        self.model_classes = imagenet_classes(names)
        self._labels = np.array(found, np.int32)
        self._max_pixels = max_pixels
        try:
            undecoded = datasets.Image(decode=False)
            self._images = plain.select_columns([image]).cast_column(image, undecoded)
        except Exception as error:  # arrow raises nearly anything
            raise DiffjaxError(
                f"The column {image} of {self._which} holds no images ({_line(error)})."
            ) from error
        self._column = image
        sample = sorted({i * len(self) // _SAMPLE for i in range(_SAMPLE)})
        content = [self._bytes(i) for i in sample]
        self.fingerprint = digest([*names, self._labels.tobytes(), *content])

    @property
    def _which(self) -> str:
        return f"{self.name} {self.split}"

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        """The example at an index in [0, len), decoded now."""
        name = f"{self.split}_{index:05d}"
        try:
            image = load_image(self._bytes(index), max_pixels=self._max_pixels)
        except DiffjaxError as error:
            raise DiffjaxError(f"{self._which}: example {name}: {error}") from error
        return Example(image=np.asarray(image), label=int(self._labels[index]), id=name)

    def labels(self) -> Int32[np.ndarray, " n"]:
        """The label of each example, in order."""
        return self._labels

    def _bytes(self, index: int) -> bytes:
        """The encoded image."""
        try:
            stored = self._images[index][self._column]
            if stored is None:
                return b""
            content: bytes | None = stored["bytes"]
            return Path(stored["path"]).read_bytes() if content is None else content
        except Exception as error:  # the library's readers raise nearly anything
            raise DiffjaxError(
                f"{self._which}: example {index} cannot be read ({_line(error)})."
            ) from error

    def _image_column(self, features: Any, asked: str | None) -> str:
        import datasets

        if asked is not None:
            return self._named(features, asked)
        found = [k for k, kind in features.items() if isinstance(kind, datasets.Image)]
        return self._only(features, found, "image")

    def _label_column(self, features: Any, asked: str | None) -> str:
        import datasets

        def is_label(kind: Any) -> bool:
            plain = isinstance(kind, datasets.Value) and _PLAIN.fullmatch(kind.dtype)
            return isinstance(kind, datasets.ClassLabel) or bool(plain)

        if asked is not None:
            name = self._named(features, asked)
            if not is_label(features[name]):
                raise DiffjaxError(
                    f"The column {name} of {self._which} holds no labels: it is "
                    f"{_kind(features[name])}, and labels are numbers or texts."
                )
            return name
        typed = datasets.ClassLabel
        found = [k for k, kind in features.items() if isinstance(kind, typed)]
        if not found and LABEL in features and is_label(features[LABEL]):
            found = [LABEL]
        return self._only(features, found, "label")

    def _named(self, features: Any, name: str) -> str:
        if name not in features:
            raise unknown(f"column of {self._which} called", name, list(features))
        return name

    def _only(self, features: Any, found: list[str], what: str) -> str:
        if len(found) == 1:
            return found[0]
        columns = ", ".join(f"{name} ({_kind(k)})" for name, k in features.items())
        count = "several columns" if found else "no column"
        raise DiffjaxError(
            f"{self._which} has {count} of {what}s that can be told by the type: name "
            f"one with --{what}-column ({what}_column=). Its columns: {columns:.500}."
        )


def open_huggingface(
    text: str,
    split: str | None = None,
    *,
    offline: bool = False,
    **columns: Any,
) -> HuggingFaceSource:
    """Open a data set by what follows ``hf:``, as this module's page says.

    Args:
        text: with or without the prefix.
        split: if the text names none; a slice such as test[:100] is one too. By default
            test, else validation, else the only one.
        offline: whether to leave the network alone.
        **columns: as for ``HuggingFaceSource``.

    Raises:
        DiffjaxError: if the library is not installed, or the data set or its split is
            not there or cannot be read.
    """
    _library()
    place, config, split = _parts(text.removeprefix(PREFIX), split)
    if place.startswith((".", "/", "~")) or place.lower().endswith(".parquet"):
        found = _local(place, config, split)
    else:
        found = _of_the_hub(place, config, split, offline)
    return open_dataset(found, split, name=f"{PREFIX}{place}", **columns)


def open_dataset(
    dataset: Any, split: str | None = None, *, name: str = "dataset", **columns: Any
) -> HuggingFaceSource:
    """Open a data set that is there: a ``datasets.Dataset``, or a dict of them.

    Raises:
        DiffjaxError: if it has no such split, is streamed, or is not one of labelled
            images.
    """
    datasets = _library()
    if isinstance(dataset, dict):
        split = _chosen(name, list(dataset), split)
        dataset = dataset[split]
    elif isinstance(dataset, datasets.Dataset):
        own = ALL if dataset.split is None else str(dataset.split)
        if split not in (None, own):
            raise DiffjaxError(
                f"{name} is not divided, so there is no {split!r}; its split is {own}."
            )
        split = own
    if not isinstance(dataset, datasets.Dataset):
        raise DiffjaxError(
            f"{name} is a {type(dataset).__name__}: it is streamed, and has neither a "
            "length nor an order to go on in. Load it without streaming=True."
        )
    return HuggingFaceSource(dataset, name, split or ALL, **columns)


def is_dataset(value: object) -> bool:
    """Whether a value is of the library, which need not be installed."""
    kinds = {"Dataset", "DatasetDict", "IterableDataset", "IterableDatasetDict"}
    return any(
        each.__module__.partition(".")[0] == "datasets" and each.__name__ in kinds
        for each in type(value).__mro__
    )


def _library() -> Any:
    datasets = optional("datasets", "A data set of Hugging Face")
    if int(datasets.__version__.partition(".")[0]) < 4:  # they may run code
        raise DiffjaxError(
            "Data sets of Hugging Face need version 4 or later of datasets, which is "
            f"of version {datasets.__version__}: pip install {OPTIONAL['datasets']}"
        )
    return datasets


def _parts(text: str, split: str | None) -> tuple[str, str | None, str | None]:
    """Place, configuration and split."""
    place, *rest = _COLON.split(text)
    if not place or len(rest) > 2 or not all(rest):
        raise DiffjaxError(
            f"{PREFIX}{text} is not understood: write {PREFIX}NAME:SPLIT, "
            f"{PREFIX}NAME:CONFIG:SPLIT or {PREFIX}./folder:SPLIT."
        )
    if rest and split is not None and rest[-1] != split:
        raise DiffjaxError(f"{PREFIX}{text} names a split; leave --split {split} out.")
    if rest:
        split = rest[-1]
    return place, rest[0] if len(rest) == 2 else None, split


def _local(place: str, config: str | None, split: str | None) -> Any:
    datasets, path = _library(), user_path(place)
    if not path.exists():
        raise DiffjaxError(f"There is no file or folder {path}. Check the path.")
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return _read(place, lambda: datasets.load_from_disk(str(path)))
    if path.is_file():
        files = {"data_files": str(path)}
        kind = path.suffix.removeprefix(".")
        # a file is one split, which the library calls train
        return _read(place, lambda: datasets.load_dataset(kind, split="train", **files))
    return _read(
        place, lambda: datasets.load_dataset(str(path.absolute()), config, split=split)
    )


def _of_the_hub(name: str, config: str | None, split: str | None, offline: bool) -> Any:
    datasets = _library()

    def load() -> Any:
        return datasets.load_dataset(name, config, split=split)

    with _no_network(datasets):
        try:
            return load()
        except Exception as error:  # whatever is wrong with the cache, or not there
            reason = _line(error)
    kept = datasets.config.HF_DATASETS_CACHE
    if offline or datasets.config.HF_HUB_OFFLINE:
        raise DiffjaxError(
            f"{PREFIX}{name} cannot be taken from the cache of datasets ({kept}), and "
            f"the network is not to be used ({reason}). Run it once with a network."
        )
    warnings.warn(
        f"{PREFIX}{name} is not in the cache of datasets, {kept}: it is downloaded "
        "from the Hugging Face hub.",
        stacklevel=4,
    )
    return _read(f"{PREFIX}{name}", load)


@contextmanager
def _no_network(datasets: Any) -> Iterator[None]:
    """Have the library look into its cache alone."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _read(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # the library raises nearly anything
        raise DiffjaxError(f"{name} cannot be opened ({_line(error)}).") from error


def _chosen(name: str, splits: list[str], asked: str | None) -> str:
    if asked is not None:
        if asked not in splits:
            raise unknown(f"split of {name} called", asked, splits)
        return asked
    usual = [split for split in DEFAULT_SPLITS if split in splits]
    if not usual and len(splits) != 1:
        raise DiffjaxError(f"Name a split of {name}, one of: {', '.join(splits)}.")
    return usual[0] if usual else splits[0]


def _kind(feature: Any) -> str:
    return str(getattr(feature, "dtype", None) or type(feature).__name__)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
