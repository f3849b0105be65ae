"""The small ResNet that `diffjax train resnet` makes, and that the package brings.

FOLDER/config.json          the network's numbers, and the names of the classes
FOLDER/model.safetensors    its weights
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from flax import nnx

from diffjax.baselines.classifier import ImageClassifier
from diffjax.baselines.resnet import CLASS_NAME, ResNet, ResNetConfig
from diffjax.checkpoints.components import TRANSFORMERS_STEM
from diffjax.checkpoints.formats import read_tensors
from diffjax.checkpoints.mappings import fill, to_torch
from diffjax.checkpoints.naming import Names
from diffjax.checkpoints.networks import read_json
from diffjax.data.images import preprocess
from diffjax.errors import DiffjaxError
from diffjax.files import write_json
from diffjax.models.config import differing
from diffjax.models.network import Network

EMBEDDED = {"resnet": Path(__file__).parents[1] / "assets" / "resnet"}
CONFIG, WEIGHTS = "config.json", f"{TRANSFORMERS_STEM}.safetensors"


def save_classifier(model: ResNet, class_names: Sequence[str], folder: Path) -> None:
    """Write a network and the names of its classes; the folder is made.

    Raises:
        ValueError: if there are more or fewer names than classes.
    """
    from safetensors.numpy import save_file

    if len(class_names) != model.config.num_classes:
        raise ValueError(
            f"{len(class_names)} names, {model.config.num_classes} classes"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_torch(nnx.state(model, nnx.Param), Names())
    stored = {key: np.ascontiguousarray(t, np.float32) for key, t in tensors.items()}
    save_file(stored, folder / WEIGHTS)
    names = {"id2label": {str(i): name for i, name in enumerate(class_names)}}
    write_json(folder / CONFIG, model.config.as_dict() | names, indent=2)


def load_classifier(name_or_folder: str | Path) -> ImageClassifier:
    """Read what ``save_classifier`` has written.

    Args:
        name_or_folder: a folder, or "resnet", which comes with the package.

    Raises:
        DiffjaxError: if there is no such folder, a file is missing or damaged, or they
            do not belong together.
    """
    folder = EMBEDDED.get(str(name_or_folder), Path(name_or_folder))
    if not folder.is_dir():
        raise DiffjaxError(
            f"{name_or_folder} is neither {' nor '.join(EMBEDDED)}, which comes with "
            "the package, nor a folder; `diffjax train resnet` makes one, RUN/model. "
            "What others trained is named with its kind: clip:NAME, vit:NAME or "
            "resnet:NAME."
        )
    path = folder / CONFIG
    raw = read_json(path)
    if raw.get("_class_name") != CLASS_NAME:
        raise DiffjaxError(
            f"{path} is not of `diffjax train resnet`. A classifier of transformers' "
            f"is vit:{folder} or resnet:{folder}, CLIP is clip:{folder}."
        )
    config = ResNetConfig.from_dict(raw, str(path))
    names = class_names(raw, config.num_classes, path)
    graphdef, abstract = nnx.split(ResNet(config, rngs=None))
    tensors = read_tensors(folder, stem=TRANSFORMERS_STEM)
    return ImageClassifier(
        name=str(name_or_folder),
        network=Network(graphdef, fill(abstract, tensors, Names(), str(folder))),
        see=partial(preprocess, resolution=config.sample_size),
        resolution=config.sample_size,
        class_names=names,
        config=differing(config),
    )


def class_names(raw: dict[str, object], n: int, path: Path) -> tuple[str, ...]:
    """The names of n classes, from a config's id2label.

    Raises:
        DiffjaxError: if it names others than the classes 0 to n − 1.
    """
    labels = raw.get("id2label")
    wanted = [str(i) for i in range(n)]
    if not isinstance(labels, dict) or sorted(labels) != sorted(wanted):
        raise DiffjaxError(f"{path}: id2label must name the classes 0 to {n - 1}.")
    return tuple(str(labels[each]) for each in wanted)
