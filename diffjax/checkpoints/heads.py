"""LAION's aesthetic heads and its detector of unsafe images, by names and files.

    mlp        sac+logos+ava1-l14-linearMSE.pth, of christophschuhmann's
               improved-aesthetic-predictor: what LAION-Aesthetics V2 was scored by
    linear     sa_0_4_vit_l_14_linear.pth, of LAION-AI/aesthetic-predictor: V1
    FILE       either of them, or another of the same layers, .pth or .safetensors

The package has the first two. As nothing lies between the layers of the first, it is
one linear map as well: ``scripts/make_aesthetic_heads.py`` has multiplied them.
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.checkpoints.catalog import ASSETS
from diffjax.checkpoints.formats import Tensors, read_tensors
from diffjax.checkpoints.saved_model import SavedModel, read_saved_model
from diffjax.choices import AESTHETIC_HEADS
from diffjax.errors import DiffjaxError
from diffjax.files import PathLike, regular_file, user_path
from diffjax.models.heads import AestheticHead, Detector, Layer

EMBEDDED = ASSETS / "laion" / "aesthetic.safetensors"
_MLP = ("layers.0", "layers.2", "layers.4", "layers.6", "layers.7")  # else dropout
DETECTOR = "clip_autokeras_binary_nsfw.zip"
DETECTOR_URL = f"https://raw.githubusercontent.com/LAION-AI/CLIP-based-NSFW-Detector/main/{DETECTOR}"
_LAYERS = re.compile(
    r"InputLayer Custom>MultiCategoryEncoding Normalization "
    r"(Dense ReLU (Dropout )?)*Dense Activation"
)
# what layers are implemented to do; a setting that is missing does it too
_SETTINGS: dict[str, dict[str, Any]] = {
    "Dense": {"activation": "linear", "use_bias": True},
    "ReLU": {"max_value": None, "negative_slope": 0.0, "threshold": 0.0},
    "Activation": {"activation": "sigmoid"},
}


def load_aesthetic(name: str) -> AestheticHead:
    """An aesthetic head of the package, or a file's.

    Args:
        name: "mlp", "linear" or the path of a file.

    Raises:
        DiffjaxError: if there is no such file, or it holds something else.
    """
    if name in AESTHETIC_HEADS:
        tensors = read_tensors(EMBEDDED)
        return AestheticHead(layers=(_layer(tensors, name, EMBEDDED),))
    if "/" not in name and not user_path(name).exists():
        raise DiffjaxError(
            f"There is no file {name}, and no aesthetic head of this name; there are "
            f"{' and '.join(AESTHETIC_HEADS)}."
        )
    path = regular_file(name, "aesthetic head")
    tensors = read_tensors(path)
    places = ("",) if "weight" in tensors else _MLP
    if set(tensors) != {_key(place, kind) for place in places for kind in _KINDS}:
        raise DiffjaxError(
            f"{path} is no aesthetic head: it has {_list(tensors)}. A linear one has "
            f"weight and bias, LAION's second version those of {', '.join(_MLP)}."
        )
    layers = tuple(_layer(tensors, place, path) for place in places)
    widths = [len(weight) for weight, _ in layers] + [1]
    if widths[1:] != [len(bias) for _, bias in layers]:
        raise DiffjaxError(
            f"The layers in {path} do not fit one another, or end in more than a score."
        )
    return AestheticHead(layers=layers)


def load_detector(path: PathLike) -> Detector:
    """The detector, as published: Keras' folder of a model in a zip file.

    Raises:
        DiffjaxError: if there is none (with what to fetch), or it is damaged, or a
            model of other layers.
    """
    place = user_path(path)
    if not place.exists():
        raise DiffjaxError(
            f"There is no detector of unsafe images {place}. Fetch {DETECTOR_URL} "
            "(1 MB, MIT) to there, or name it with --detector; with --filter size "
            "--filter aesthetic none is needed."
        )
    model = read_saved_model(place)
    try:
        return _detector(model)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DiffjaxError(
            f"{place} is no detector of unsafe images that is known here "
            f"({type(error).__name__}: {error}). Fetch {DETECTOR_URL}"
        ) from error


_KINDS = "weight", "bias"


def _key(place: str, kind: str) -> str:
    return f"{place}.{kind}" if place else kind


def _layer(tensors: Tensors, place: str, path: Path) -> Layer:
    """A layer as torch stores it: weights [q, p], and biases [q]."""
    weight, bias = (tensors[_key(place, kind)] for kind in _KINDS)
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise DiffjaxError(
            f"{path}: {_key(place, 'weight')} of shape {weight.shape} and a bias of "
            f"shape {bias.shape} are no layer."
        )
    layer = weight.T.astype(np.float32), bias.astype(np.float32)
    if not all(np.isfinite(each).all() for each in layer):
        raise DiffjaxError(f"{path} holds numbers that are not finite.")
    return layer


def _list(tensors: Tensors) -> str:
    names = sorted(tensors)
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def _detector(model: SavedModel) -> Detector:
    """Raises ValueError and others if the model is not as in ``models.heads``."""
    layers = model.config["layers"]
    classes = " ".join(layer["class_name"] for layer in layers)
    if not _LAYERS.fullmatch(classes):
        raise ValueError(f"its layers are {classes}")
    for before, layer in zip([None, *layers], layers, strict=False):
        config, wanted = layer["config"], _SETTINGS.get(layer["class_name"], {})
        for key, value in wanted.items():
            if config.get(key, value) != value:
                raise ValueError(f"{layer['name']} has {key}={config[key]!r}")
        if layer["inbound_nodes"] != ([[[before["name"], 0, 0, {}]]] if before else []):
            raise ValueError(f"{layer['name']} does not follow the layer before it")
    variables = model.variables
    mean, variance = (
        variables[f"layer_with_weights-1/{name}"] for name in ("mean", "variance")
    )
    dense = []
    for k in range(classes.split().count("Dense")):
        weight, bias = (
            variables[f"layer_with_weights-{k + 2}/{name}"]
            for name in ("kernel", "bias")
        )
        dense.append((weight, bias))
    widths = [len(mean), *(len(bias) for _, bias in dense)]
    if [w.shape for w, _ in dense] != list(pairwise(widths)):
        raise ValueError("its layers do not fit one another")
    if widths[-1] != 1 or mean.shape != variance.shape or not (variance >= 0).all():
        raise ValueError("its variances or its last layer are not as they should be")
    if not all(np.isfinite(each).all() for each in (mean, variance, *sum(dense, ()))):
        raise ValueError("it holds numbers that are not finite")
    return Detector(
        categories=_categories(model, len(mean)),
        mean=mean,
        variance=variance,
        layers=tuple(dense),
    )


def _categories(model: SavedModel, width: int) -> dict[int, dict[str, int]]:
    """The lists of those columns that are looked up.

    A call with three inputs fills a table with texts and their numbers; the call that
    answers takes the tables in the order of their columns.
    """
    encoding = model.config["layers"][1]["config"]["encoding"]
    if len(encoding) != width or not {*encoding} <= {"none", "int"}:
        raise ValueError("its inputs are encoded in an unknown way")
    columns = [c for c, how in enumerate(encoding) if how == "int"]
    nodes = model.nodes
    filled = {
        node.inputs[0]: [nodes[name].value for name in node.inputs[1:]]
        for node in nodes.values()
        if len(node.inputs) == 3
        and all(nodes[n].op == "Const" for n in node.inputs[1:])
    }
    (answer,) = (
        node
        for node in nodes.values()
        if node.inputs and node.inputs[0].startswith("serving_default")
    )
    tables = [filled[name] for name in answer.inputs if name in filled]
    for texts, numbers in tables:
        if texts is None or numbers != [*range(1, len(set(texts)) + 1)]:
            raise ValueError("a list of categories is not numbered from 1")
    return {
        column: dict(zip(texts or (), numbers or (), strict=True))
        for column, (texts, numbers) in zip(columns, tables, strict=True)
    }
