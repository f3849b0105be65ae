"""Data sets by name or path.

    ./photos, ~/photos, /data/photos    an image folder, see ``folders``
    list.csv, list.jsonl                a table of paths and labels, see ``tables``
    aircraft, objectnet                 published layouts, see the modules of that name
    cifar10_c/fog/3                     and the like, see ``common_corruptions``
    hf:NAME:SPLIT, hf:./folder:SPLIT    of Hugging Face's library, see ``huggingface``
    anything else                       a tensorflow-datasets directory, see ``tfds``

Nothing but hf:NAME is ever downloaded: what is not there gives an error that says how
to get it. From Python data sets may also be objects, see ``source_of``.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from diffjax.data import common_corruptions, huggingface, tables
from diffjax.data.aircraft import open_aircraft
from diffjax.data.common_corruptions import open_common_corruption
from diffjax.data.files import ALL, load_upright
from diffjax.data.folders import open_folder
from diffjax.data.huggingface import is_dataset, open_dataset, open_huggingface
from diffjax.data.objectnet import open_objectnet
from diffjax.data.pairs import PairSource
from diffjax.data.sources import DataDir, Source
from diffjax.data.tables import open_table
from diffjax.data.tfds import open_tfds
from diffjax.errors import DiffjaxError

# Sets with a layout of their own, below the folder of data sets.
OWN_LAYOUTS: dict[str, Callable[[str, DataDir], Source]] = {
    "aircraft": open_aircraft,
    "objectnet": open_objectnet,
}


def open_source(
    dataset: str,
    split: str | None = None,
    data_dir: DataDir = None,
    max_pixels: int | None = None,
    *,
    offline: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """Open a data set.

    Args:
        dataset: what starts with ".", "/" or "~" or ends in .csv or .jsonl is a path,
            what starts with "hf:" is read by ``huggingface``, anything else is a name.
        split: by default "test" where there is a labelled one, else "validation".
            Of an image folder the sub-folder that holds the classes (train, val, …),
            where there is one. Tables are not divided.
        data_dir: the folder that holds the named data sets; ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets`` by default.
        max_pixels: of one's own images, as in ``load_image``.
        offline: whether to leave the network alone; "hf:" alone may use it.
        image_column, label_column: of "hf:", where types do not tell them.

    Raises:
        DiffjaxError: if it is not there (with what to do), has no such split, or is
            not a set of labelled images.
    """
    columns = {"image_column": image_column, "label_column": label_column}
    if dataset.startswith(huggingface.PREFIX):
        return open_huggingface(
            dataset, split, offline=offline, max_pixels=max_pixels, **columns
        )
    _no_columns(dataset, columns)
    is_table = dataset.lower().endswith(tables.SUFFIXES)
    if is_table or dataset.startswith((".", "/", "~")):
        load = partial(load_upright, max_pixels=max_pixels)
        if not is_table:
            return open_folder(dataset, split, load=load)
        if split not in (None, ALL):
            raise DiffjaxError(
                f"{dataset} is a table and has no splits, so there is no {split!r}. "
                "Name the table of that split instead."
            )
        return open_table(dataset, load=load)
    if dataset.partition("/")[0] in common_corruptions.PUBLISHED:
        return open_common_corruption(dataset, split, data_dir)
    if dataset in OWN_LAYOUTS:
        return OWN_LAYOUTS[dataset](split or "test", data_dir)
    if not dataset:
        raise DiffjaxError("The name of the data set is empty.")
    return open_tfds(dataset, split, data_dir)


def source_of(
    dataset: Any,
    split: str | None = None,
    max_pixels: int | None = None,
    *,
    class_names: Sequence[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """Make a source of a data set that is an object.

    Args:
        dataset: a ``Source``; a ``datasets.Dataset`` of Hugging Face, or a dict of
            them; or an iterable of (image, label) or {"image": …, "label": …}, which is
            read to its end, see ``pairs``.
        split: of a dict of splits.
        max_pixels: as in ``load_image``.
        class_names: what labels that are numbers stand for, or all names that labels
            may be; for ``labels.numbered``.
        image_column, label_column: of a ``datasets.Dataset``, as for ``open_source``.

    Raises:
        DiffjaxError: if it is none of these, or not one of labelled images.
    """
    columns: dict[str, Any] = {
        "image_column": image_column,
        "label_column": label_column,
    }
    if is_dataset(dataset):
        return open_dataset(
            dataset, split, class_names=class_names, max_pixels=max_pixels, **columns
        )
    what = f"a {type(dataset).__name__}"
    _no_columns(what, columns)
    if split is not None:
        raise DiffjaxError(f"{what} has no splits, so there is no {split!r}.")
    if isinstance(dataset, Source):
        if class_names is not None:
            raise DiffjaxError(f"{what} has class names of its own: leave them out.")
        return dataset
    if isinstance(dataset, str | bytes | os.PathLike | Mapping) or not (
        isinstance(dataset, Iterable) or hasattr(dataset, "__getitem__")
    ):
        raise DiffjaxError(
            f"{what} is no data set. Give a name or a path; or pairs of an image and "
            "its label, as [(image, label), …]."
        )
    return PairSource(dataset, class_names, max_pixels=max_pixels)


def _no_columns(dataset: str, columns: Mapping[str, str | None]) -> None:
    if given := [name for name, value in columns.items() if value is not None]:
        raise DiffjaxError(
            f"{given[0]} is of Hugging Face's data sets (hf:…), and {dataset} is none."
        )
