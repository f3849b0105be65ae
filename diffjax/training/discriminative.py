"""A ResNet, trained to classify by the same loop, for comparison.

OUT/classifier/      loss.csv and checkpoints
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Int32, UInt8
from rich.console import Console

from diffjax.baselines.own import save_classifier
from diffjax.baselines.resnet import ResNet, ResNetConfig, resnet_loss
from diffjax.training.batches import PixelBatch, batch_items, item_pixels
from diffjax.training.initial import initial_network
from diffjax.training.loop import fit
from diffjax.training.recipes import Discriminative, compute_dtype


def train_discriminative(
    recipe: Discriminative,
    images: UInt8[np.ndarray, "n H W 3"],
    labels: Int32[np.ndarray, " n"],
    class_names: Sequence[str],
    out: Path,
    *,
    seed: int,
    steps: int | None,
    console: Console,
) -> None:
    """Train and save; the arguments are those of ``train_diffusion``.

    Images come plain and flipped, as a diffusion model's do, and moved by nothing: the
    shifts that both are tested on are new to both.
    """
    numbers = dict(recipe.network) | {
        "num_classes": len(class_names),
        "sample_size": images.shape[1],
    }
    config = ResNetConfig.from_dict(numbers, f"recipe {recipe.name}: network")
    random = np.random.default_rng(seed)
    network = initial_network(ResNet, config, random, compute_dtype(recipe))
    graph, parameters = nnx.split(network)
    phase = recipe.classifier

    def loss(parameters: Any, batch: Any, key: Any) -> Any:  # of a PixelBatch
        del key
        return resnet_loss(nnx.merge(graph, parameters), batch.pixels, batch.labels)

    def batch_of_step(step: int) -> PixelBatch:
        items = batch_items(2 * len(images), phase.batch, step, seed)
        pixels = item_pixels(images, items, mirror=True)
        return PixelBatch(pixels, labels[items % len(images)])

    parameters = fit(
        phase,
        loss,
        parameters,
        batch_of_step,
        out / "classifier",
        seed=seed,
        stop=steps,
        console=console,
    )
    save_classifier(nnx.merge(graph, parameters), class_names, out / "model")
