"""A DiT, trained on labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8
from rich.console import Console

from diffjax.checkpoints.naming import DIT
from diffjax.models.dit import DiTTransformer2DConfig, DiTTransformer2DModel
from diffjax.training.initial import initial_network
from diffjax.training.kind import Kind
from diffjax.training.recipes import ClassToImage, compute_dtype

MOST_SHOWN = 20  # classes


def class_to_image(
    recipe: ClassToImage,
    images: UInt8[np.ndarray, "n H W 3"],
    labels: Int32[np.ndarray, " n"],
    class_names: Sequence[str],
    out: Path,
    random: np.random.Generator,
    console: Console,
) -> Kind:
    """Make the network; the arguments are those of ``text_to_image``."""
    config = DiTTransformer2DConfig.from_dict(
        recipe.transformer, f"recipe {recipe.name}: transformer"
    )
    network = initial_network(
        DiTTransformer2DModel, config, random, compute_dtype(recipe)
    )
    n_classes = len(class_names)
    return Kind(
        networks={"denoiser": network},
        ids=lambda items, random: labels[items % len(labels)],
        nothing=np.array(n_classes, np.int32),
        shown=np.arange(min(n_classes, MOST_SHOWN), dtype=np.int32),
        further=np.empty((0, *images.shape[1:]), np.uint8),
        bound_weight=recipe.bound_weight,
        pipeline="DiTPipeline",
        stored={"transformer": (DIT, recipe.transformer)},
        class_names=class_names,
    )
