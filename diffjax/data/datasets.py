"""Data sets by name or path.

    ./photos, ~/photos, /data/photos    an image folder, see ``folders``
    list.csv, list.jsonl                a table of paths and labels, see ``tables``
    aircraft, objectnet                 published layouts, see the modules of that name
    anything else                       a tensorflow-datasets directory, see ``tfds``

Nothing is ever downloaded: what is not there gives an error that says how to get it.
"""

from collections.abc import Callable
from functools import partial

from diffjax.data import tables
from diffjax.data.aircraft import open_aircraft
from diffjax.data.files import ALL, load_upright
from diffjax.data.folders import open_folder
from diffjax.data.objectnet import open_objectnet
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
) -> Source:
    """Open a data set.

    Args:
        dataset: what starts with ".", "/" or "~" or ends in .csv or .jsonl is a path,
            anything else a name.
        split: by default "test" where there is a labelled one, else "validation".
            Of an image folder the sub-folder that holds the classes (train, val, …),
            where there is one. Tables are not divided.
        data_dir: the folder that holds the named data sets; ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets`` by default.
        max_pixels: of the images of folders and tables, as in ``load_image``.

    Raises:
        DiffjaxError: if it is not there (with what to do), has no such split, or is
            not a set of labelled images.
    """
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
    if dataset in OWN_LAYOUTS:
        return OWN_LAYOUTS[dataset](split or "test", data_dir)
    if not dataset:
        raise DiffjaxError("The name of the data set is empty.")
    return open_tfds(dataset, split, data_dir)
