"""ImageNet's 1,000 classes, by their WordNet ids."""

import re
import warnings
from collections.abc import Sequence
from functools import cache

from diffjax.data.presets import ASSETS
from diffjax.files import read_lines

# alone, or before a name as in n02085620-Chihuahua
_WORDNET_ID = re.compile(r"(n\d{8})(?:[-_ ](.+))?", re.ASCII | re.DOTALL)


@cache
def wordnet_ids() -> tuple[str, ...]:
    """The WordNet ids in the order of every ImageNet model's outputs: sorted."""
    return tuple(
        name
        for line in read_lines(ASSETS / "wordnet_ids.txt")
        if not line.startswith("#")
        for name in line.split()
    )


def imagenet_classes(class_names: Sequence[str]) -> tuple[tuple[int, ...], ...] | None:
    """The model's class for each class whose name is a WordNet id.

    ImageNet itself, V2, A, R, Sketch and subsets of them name their classes so, in
    tensorflow-datasets as well as in the folders that their authors publish.

    Returns:
        One id in [0, 1000) per class; None unless all names are among the 1,000.
    """
    matches = [_WORDNET_ID.fullmatch(name) for name in class_names]
    found = [match[1] for match in matches if match]
    if not found or len(found) < len(class_names) or len(set(found)) < len(found):
        return None
    ids = {name: i for i, name in enumerate(wordnet_ids())}
    if not set(found) <= set(ids):
        return None
    return tuple((ids[name],) for name in found)


def places_of_imagenet(names: Sequence[str] | None) -> Sequence[int]:
    """Where a model with 1,000 classes has each of ImageNet's: in order, unless it
    names them by WordNet ids in another.
    """
    ids = None if names is None else imagenet_classes(names)
    if ids is None:
        return range(len(wordnet_ids()))
    place = {imagenet: own for own, (imagenet,) in enumerate(ids)}
    return [place[i] for i in range(len(place))]


def are_imagenet(names: Sequence[str]) -> bool:
    """Whether a model's 1,000 classes are ImageNet's in their order, by their names.

    They are, if half of them agree in a word: names differ from list to list.
    """

    def words(text: str) -> set[str]:
        return set(re.findall(r"[^\W_]+", text.lower()))

    if imagenet_classes(names) is not None:
        return True
    both = zip(names, imagenet_names(), strict=True)
    return sum(bool(words(a) & words(b)) for a, b in both) >= len(names) / 2


def readable_names(class_names: Sequence[str]) -> list[str]:
    """What prompts call the classes of a data set.

    WordNet ids become the names of ImageNet's classes, underscores spaces.

    Warns of WordNet ids that ImageNet's 1,000 classes do not have: they stay.
    """
    names, strange = [], []
    for name in class_names:
        match = _WORDNET_ID.fullmatch(name)
        if match is None:
            names.append(name)
        elif match[2] is not None:
            names.append(match[2])
        elif name in wordnet_ids():
            names.append(imagenet_names()[wordnet_ids().index(name)])
        else:
            strange.append(name)
            names.append(name)
    if strange:
        warnings.warn(
            f"{len(strange)} of {len(names)} classes go by WordNet ids that are not "
            f"ImageNet's ({strange[0]}); text models know them by names: give prompts.",
            stacklevel=3,
        )
    return [name.replace("_", " ").strip() for name in names]


@cache
def imagenet_names() -> tuple[str, ...]:
    """The names of ImageNet's classes that the package's prompts have, in order."""
    return tuple(filter(None, read_lines(ASSETS / "classnames" / "imagenet.txt")))
