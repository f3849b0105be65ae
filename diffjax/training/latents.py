"""The autoencoder of a recipe, and the latents of its images: the first phase.

OUT/autoencoder/     loss.csv and checkpoints
OUT/latents.npy      of all items, unscaled
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float32, UInt8
from rich.console import Console

from diffjax.data.arrays import read_npy
from diffjax.errors import DiffjaxError
from diffjax.files import atomic
from diffjax.models.autoencoder import AutoencoderKL, AutoencoderKLConfig
from diffjax.tracing import jit
from diffjax.training.batches import batch_items, item_pixels
from diffjax.training.beginning import Beginning
from diffjax.training.initial import initial_network
from diffjax.training.loop import batch_shardings, fit
from diffjax.training.objective import autoencoder_loss
from diffjax.training.recipes import Diffusion

AT_ONCE = 200  # images encoded


@dataclass(frozen=True, kw_only=True, eq=False)
class Latents:
    """What the second phase begins with.

    Attributes:
        vae: trained.
        values: of all items, scaled.
        scaling_factor: 1 / (standard deviation of the autoencoder's latents).
    """

    vae: AutoencoderKL
    values: Float32[np.ndarray, "k h w c"]
    scaling_factor: float


def train_autoencoder(
    recipe: Diffusion,
    images: UInt8[np.ndarray, "n H W 3"],
    further: UInt8[np.ndarray, "m H W 3"],
    out: Path,
    *,
    seed: int,
    beginning: Beginning | None = None,
    console: Console,
) -> Latents:
    """Train the autoencoder and encode all items, or read what a former call left.

    Args:
        recipe: whose autoencoder it is.
        images: of which a recipe makes ``copies`` items each.
        further: the items after those; neither mirrored nor cropped.
        out: the run's folder.
        seed: of initial weights, batches and draws.
        beginning: whose autoencoder is taken as it is, instead of a new one.
        console: where the progress bar goes.

    Raises:
        DiffjaxError: if the latents that are there are of other data.
    """
    config = AutoencoderKLConfig.from_dict(recipe.vae, f"recipe {recipe.name}: vae")
    network = initial_network(AutoencoderKL, config, np.random.default_rng(seed))
    if beginning is not None:
        beginning.check({"autoencoder": network})
        network = beginning.weights(network, "autoencoder")
    graph, parameters = nnx.split(network)
    phase = recipe.autoencoder
    own = len(images) * recipe.copies
    n = own + len(further)

    def pixels(items: np.ndarray) -> np.ndarray:  # of any items, in [−1, 1]
        ours = items < own
        found = np.empty((len(items), *images.shape[1:]), np.float32)
        found[ours] = item_pixels(images, items[ours], mirror=recipe.mirror)
        if not ours.all():
            found[~ours] = item_pixels(further, items[~ours] - own, mirror=False)
        return found

    if beginning is None:
        parameters = fit(
            phase,
            lambda parameters, pixels, key: autoencoder_loss(
                nnx.merge(graph, parameters), pixels, key, recipe.kl_weight
            ),
            parameters,
            lambda step: pixels(batch_items(n, phase.batch, step, seed)),
            out / "autoencoder",
            seed=seed,
            console=console,
        )
    path = out / "latents.npy"
    if not path.exists():
        console.print("Encoding the training images.")
        batches = (
            pixels(np.arange(i, min(i + AT_ONCE, n), dtype=np.int32))
            for i in range(0, n, AT_ONCE)
        )
        write_latents(graph, parameters, batches, path)
    kept = None if beginning is None else beginning.model.scaling_factor
    values, scaling_factor = read_latents(path, kept)
    if len(values) != n:
        raise DiffjaxError(
            f"{path} has {len(values):,} items, and the data {n:,}: it is of another "
            "run. Train in another folder."
        )
    # free of this phase's devices: the next one's batches may divide among others
    parameters = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), parameters)
    vae = nnx.merge(graph, parameters)
    return Latents(vae=vae, values=values, scaling_factor=scaling_factor)


def write_latents(
    graph: nnx.GraphDef[AutoencoderKL],
    parameters: Any,
    batches: Iterator[Float32[np.ndarray, "b H W 3"]],
    path: Path,
) -> None:
    """Write the unscaled latents of images in [−1, 1] to a .npy file.

    Latents are the posterior's means, as the classifier uses them.
    """

    everywhere, split = batch_shardings(AT_ONCE)
    parameters = jax.device_put(parameters, everywhere)

    @jit
    def encode(parameters: Any, pixels: jax.Array) -> jax.Array:
        mean, _ = jax.vmap(nnx.merge(graph, parameters).encode)(pixels)
        return mean

    means = []
    for pixels in batches:
        full = np.resize(pixels, (AT_ONCE, *pixels.shape[1:]))  # one shape to compile
        latents = encode(parameters, jax.device_put(full, split))
        means.append(np.asarray(latents)[: len(pixels)])
    with atomic(path) as partial, partial.open("wb") as file:
        np.save(file, np.concatenate(means), allow_pickle=False)


def read_latents(
    path: Path, scaling_factor: float | None = None
) -> tuple[Float32[np.ndarray, "m h w c"], float]:
    """The scaled latents, and the scaling factor.

    By default 1 / (their standard deviation), as in Rombach et al. 2022, section 4.3.
    """
    latents = read_npy(path, "file of latents")
    if scaling_factor is None:
        # rounded, since it is written to config.json
        scaling_factor = float(f"{1 / latents.std():.6g}")
    latents *= np.float32(scaling_factor)
    return latents, scaling_factor
