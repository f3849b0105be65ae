"""ImageNet's 1,000 classes, by their WordNet ids."""

import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_WORDNET_ID = re.compile(r"n\d{8}")


@cache
def wordnet_ids() -> tuple[str, ...]:
    """The WordNet ids in the order of every ImageNet model's outputs, which is sorted.

    They are read from the list that tensorflow-datasets brings along.
    """
    spec = importlib.util.find_spec("tensorflow_datasets")  # found, not imported
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("tensorflow_datasets is not installed")
    path = Path(spec.origin).parent / "datasets" / "imagenet2012" / "labels.txt"
    return tuple(path.read_text(encoding="ascii").split())


def imagenet_classes(
    class_names: Sequence[str],
) -> tuple[tuple[int, ...], ...] | None:
    """The model's class for each class whose name is a WordNet id.

    ImageNet itself, V2, A, R, Sketch and subsets of them name their classes so, in
    tensorflow-datasets as well as in the folders that their authors publish.

    Returns:
        One id in [0, 1000) per class; None unless all names are among the 1,000.
    """
    if not class_names or not all(map(_WORDNET_ID.fullmatch, class_names)):
        return None
    ids = {name: i for i, name in enumerate(wordnet_ids())}
    if not set(class_names) <= set(ids):
        return None
    return tuple((ids[name],) for name in class_names)
