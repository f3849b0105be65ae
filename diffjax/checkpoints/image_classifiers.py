"""Networks that were trained to classify, with what they see of an image.

FOLDER/config.json                  as transformers saves them: the network's
FOLDER/preprocessor_config.json     numbers and its classes' names, how images are
FOLDER/model.safetensors            made ready, the weights
resnet101-63fe2227.pth              as torchvision publishes them: all in one
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffjax.checkpoints.components import TRANSFORMERS_STEM
from diffjax.checkpoints.formats import is_weight_file, read_tensors, weight_files
from diffjax.checkpoints.mappings import fill, without_wrappers
from diffjax.checkpoints.naming import Names
from diffjax.checkpoints.networks import (
    NETWORKS,
    classes_named_in,
    kind_of_config,
    network_shapes,
    read_json,
)
from diffjax.checkpoints.processing import FILE, Processing, read_processing
from diffjax.checkpoints.torchvision import (
    is_torchvision,
    torchvision_network,
    torchvision_processing,
)
from diffjax.data.imagenet import wordnet_ids
from diffjax.errors import DiffjaxError
from diffjax.models.network import Network
from diffjax.models.vit import ViTForImageClassificationConfig

CONFIG = "config.json"
# the classes of networks, and whose image processor their files mean if they name none
CLASSES = {
    "ViTForImageClassification": "ViT",
    "ResNetForImageClassification": "ConvNext",
}
NAMELESS = "LABEL_{}"  # a class without a name, as transformers calls it


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier:
    """What files hold.

    Attributes:
        config: of the network.
        network: pixels [H, W, 3] → logits [C].
        processing: what it sees of an image.
        class_names: of the C classes.
    """

    config: Any
    network: Network
    processing: Processing
    class_names: tuple[str, ...]

    @property
    def cls(self) -> str:
        """The network's class, a key of ``CLASSES``."""
        return kind_of_config(self.config).module.__name__


def load_image_classifier(place: Path) -> TrainedClassifier:
    """Read a folder as transformers saves them, or a file of torchvision's.

    Raises:
        DiffjaxError: if files are missing or damaged, do not fit one another, or are of
            another network.
    """
    if is_weight_file(place):
        return _torchvision_file(place)
    path = place / CONFIG
    raw = read_json(path)
    named = classes_named_in(raw, path)
    known = [name for name in named if name in CLASSES]
    if not known:
        raise DiffjaxError(
            f"{path} describes a {', '.join(named) or 'network that it does not name'};"
            f" as a classifier of images diffjax runs {' or '.join(CLASSES)}. What "
            "`diffjax train resnet` makes goes by its folder alone, without a kind."
        )
    names = _class_names(raw, path)
    kind = NETWORKS[known[0]]
    config = replace(kind.config.from_dict(raw, str(path)), num_labels=len(names))
    processing = read_processing(place, CLASSES[known[0]])
    wanted = (
        config.image_size
        if isinstance(config, ViTForImageClassificationConfig)
        else None
    )
    if wanted not in (None, processing.resolution):
        raise DiffjaxError(
            f"{place / FILE} makes images of {processing.resolution} pixels, but by "
            f"{CONFIG} the network takes {wanted}. Download both again, from one model."
        )
    tensors = without_wrappers(read_tensors(place, stem=TRANSFORMERS_STEM))
    return TrainedClassifier(
        config=config,
        network=_filled(config, tensors, kind.names, place),
        processing=processing,
        class_names=names,
    )


def files_of(names: Sequence[str], where: str) -> list[str]:
    """Those of a repository's files that are read.

    Raises:
        DiffjaxError: if it has no weights.
    """
    return [CONFIG, FILE, *weight_files(names, TRANSFORMERS_STEM, where=where)[1]]


def _torchvision_file(path: Path) -> TrainedClassifier:
    tensors = without_wrappers(read_tensors(path))
    if not is_torchvision(tensors):
        raise DiffjaxError(
            f"{path} is no ResNet or vision transformer as torchvision saves them. Of "
            f"others name the folder, with {CONFIG} beside the weights."
        )
    config, tensors, names = torchvision_network(tensors, str(path))
    n = config.num_labels
    return TrainedClassifier(
        config=config,
        network=_filled(config, tensors, names, path),
        processing=torchvision_processing(path, config),
        class_names=wordnet_ids()
        if n == 1000
        else tuple(map(NAMELESS.format, range(n))),
    )


def _filled(
    config: Any, tensors: Mapping[str, np.ndarray], names: Names, place: Path
) -> Network:
    empty = network_shapes(place, config)
    state = fill(empty.state, tensors, names, str(place))
    return Network(empty.graphdef, jax.device_put(state))


def _class_names(raw: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    labels = raw.get("id2label")
    named = labels if isinstance(labels, dict) else {}
    if not named or set(named) != set(map(str, range(len(named)))):
        raise DiffjaxError(
            f"{path}: id2label must name the classes by their numbers, from 0 on: it "
            "tells how many there are."
        )
    return tuple(str(named[str(i)]) for i in range(len(named)))
