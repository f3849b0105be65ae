"""Classifiers of ImageNet, or of other classes, that others trained: ViT and ResNet.

vit:google/vit-base-patch16-224      a folder or Hugging Face id, as transformers'
resnet:resnet101-63fe2227.pth        a file of torchvision's
resnet:resnet101                     the same, from where torch keeps such files
"""

import warnings
from functools import partial
from pathlib import Path
from typing import Unpack

from diffjax.baselines.classifier import ImageClassifier
from diffjax.checkpoints.hub import fetch
from diffjax.checkpoints.image_classifiers import files_of, load_image_classifier
from diffjax.checkpoints.parts import Access
from diffjax.checkpoints.places import existing, hub_id
from diffjax.checkpoints.torchvision import ADDRESS, published_file
from diffjax.data.imagenet import are_imagenet
from diffjax.errors import DiffjaxError
from diffjax.models.config import differing

# the class of networks, by the kind of name
NETWORKS = {
    "vit": "ViTForImageClassification",
    "resnet": "ResNetForImageClassification",
}


def load_trained(kind: str, name: str, **access: Unpack[Access]) -> ImageClassifier:
    """Load a classifier that others trained.

    Args:
        kind: a key of ``NETWORKS``.
        name: a folder, a file, a name of torchvision's, or a Hugging Face id.
        **access: how the Hub is reached.

    Raises:
        DiffjaxError: if there is none, it is of another kind, or its files are missing,
            damaged or do not fit.
    """
    found = load_image_classifier(_place(kind, name, access))
    if found.cls != NETWORKS[kind]:
        other = next(each for each, cls in NETWORKS.items() if cls == found.cls)
        raise DiffjaxError(f"{name} is a {found.cls}: write {other}:{name}.")
    classifier = ImageClassifier(
        name=f"{kind}:{name}",
        network=found.network,
        see=found.processing,
        resolution=found.processing.resolution,
        class_names=found.class_names,
        config={"class": found.cls, **differing(found.config)},
        sees=found.processing.describe(),
    )
    names = classifier.known_names
    if names is not None and len(names) == 1000 and not are_imagenet(names):
        warnings.warn(
            f"{name} has 1,000 classes, but its names for them are not ImageNet's; "
            "with ImageNet's data sets they are taken for these, in order.",
            stacklevel=2,
        )
    return classifier


load_vit, load_resnet = partial(load_trained, "vit"), partial(load_trained, "resnet")


def _place(kind: str, name: str, access: Access) -> Path:
    path = existing(name)
    if path is not None:
        return path
    file = published_file(name)
    if file is None and "/" not in name:
        stem = {"vit": "vit_b_16", "resnet": "resnet101"}[kind]
        raise DiffjaxError(
            f"{kind}:{name} is no folder or file here, no Hugging Face id, as "
            f"owner/name, and no name of torchvision's, as {stem}."
        )
    if file is None:
        return fetch(hub_id(name), select=files_of, locate=_whole, **access)
    if not file.is_file():
        raise DiffjaxError(
            f"{kind}:{name} is not here: fetch {ADDRESS}{file.name} into "
            f"{file.parent}, or name the file where it is."
        )
    return file


def _whole(folder: Path) -> Path:
    """A local copy, if it has all that is read."""
    names = [each.name for each in folder.iterdir()]
    missing = [each for each in files_of(names, str(folder)) if each not in names]
    if missing:
        raise DiffjaxError(f"{folder} lacks {', '.join(missing)}.")
    return folder
