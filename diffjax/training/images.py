"""The images that a run is trained on, as arrays of one square size."""

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from diffjax.data.images import preprocess
from diffjax.data.sheets import as_bytes
from diffjax.data.sources import Source, load_arrays
from diffjax.errors import DiffjaxError
from diffjax.training.recipes import Discriminative, Recipe

REMEDY = "--resize N brings the shorter edge of each to N pixels and crops the middle."


def check_data(
    recipe: Recipe, source: Source, *, own: bool, resize: int | None
) -> None:
    """Raise a DiffjaxError unless a recipe can be trained on a source.

    Args:
        recipe: the recipe.
        source: the images.
        own: whether it takes the place of the recipe's data set.
        resize: what was asked for.
    """
    if not own:
        if resize is not None:
            raise DiffjaxError("--resize is of the images of --data: give both.")
        return
    if not isinstance(recipe, Discriminative):
        raise DiffjaxError(
            f"The networks and captions of {recipe.name} are made for "
            f"{recipe.dataset}; --data takes the place of a classifier's data set, as "
            "in `diffjax train resnet --data DIR`."
        )
    if len(source.class_names) < 2:
        raise DiffjaxError(
            f"{source.name} has one class, {source.class_names[0]!r}; a classifier "
            "tells two or more apart. Give each class a folder."
        )
    items, batch = 2 * len(source), recipe.classifier.batch
    if items < batch:
        raise DiffjaxError(
            f"{source.name} has {len(source)} images, with mirror images {items}, and "
            f"a step of {recipe.name} takes {batch} different ones. Give more."
        )


def square_arrays(
    source: Source, resize: int | None = None
) -> tuple[UInt8[np.ndarray, "n H H 3"], Int32[np.ndarray, " n"]]:
    """All images, of one square size, and their labels.

    Raises:
        DiffjaxError: if they are of several sizes, or no squares, and are not resized;
            or one cannot be read.
    """
    if resize is not None:
        images = np.empty((len(source), resize, resize, 3), np.uint8)
        labels = np.empty(len(source), np.int32)
        for index, example in enumerate(source):
            pixels = preprocess(Image.fromarray(example.image), resize)
            images[index], labels[index] = as_bytes(pixels), example.label
        return images, labels
    try:
        images, labels = load_arrays(source)
    except DiffjaxError as error:
        if "differ in size" not in str(error):
            raise
        raise DiffjaxError(f"{error} {REMEDY}") from error
    height, width = images.shape[1:3]
    if height != width:
        raise DiffjaxError(
            f"The images of {source.name} are {width}×{height} pixels, and must be "
            f"squares. {REMEDY}"
        )
    return images, labels
