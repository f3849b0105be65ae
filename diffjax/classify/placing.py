"""A model on the devices, ready to evaluate: what settings make of it."""

from dataclasses import replace
from pathlib import Path

from jax.sharding import Mesh

from diffjax.classify.seen import sizes_for
from diffjax.classify.settings import Settings, temperature_for
from diffjax.errors import DiffjaxError
from diffjax.models.diffusion import DiffusionModel
from diffjax.scoring.grid import Grid
from diffjax.scoring.losses import NEED_VARIANCE
from diffjax.scoring.noise import NoiseTable, SeededNoise, read_noise
from diffjax.scoring.placement import (
    cells_that_fit,
    place_weights,
    replicate,
    shards_weights,
)

# as the models were trained
TRANSFORMS = {"text": "resize_crop", "class": "adm"}


def settled(
    settings: Settings, model: DiffusionModel
) -> tuple[Settings, dict[str, bool]]:
    """Fill in what a model says where settings do not.

    Returns:
        The settings, and what is known of their temperature: see ``temperature_for``.

    Raises:
        DiffjaxError: If sizes are asked for that the model is not told.
    """
    temperature, calibration = temperature_for(settings, model.temperatures)
    full = replace(
        settings,
        resolution=settings.resolution or model.resolution,
        transform=settings.transform or TRANSFORMS[model.kind],
        sizes=sizes_for(model, settings.sizes),
        temperature=temperature,
    )
    return full, calibration


def placed(
    model: DiffusionModel,
    settings: Settings,
    latent_shape: tuple[int, int, int],
    mesh: Mesh,
) -> Grid:
    """Put a model on the devices of a mesh.

    Args:
        model: The model, at the resolution of the images.
        settings: How to classify.
        latent_shape: The shape of an image's latent.
        mesh: The devices.

    Raises:
        DiffjaxError: If the model cannot have a loss, or there is no such noise.
    """
    if settings.samples is not None:
        resolution = settings.resolution or model.resolution
        T = model.schedule.n_timesteps
        settings.samples.check(model.name, model.fingerprint, resolution, T)
    losses = (settings.loss, *settings.also)
    without = [loss for loss in losses if loss in NEED_VARIANCE]
    if without and not (model.learned_variance and model.schedule.posterior):
        raise DiffjaxError(
            f"{model.name} does not predict the variance of a step, which the loss "
            f"{without[0]} needs; DiT and PixArt do, and no flow. Use l2, l1 or huber."
        )
    needs = model.denoiser.module().memory(*latent_shape[:2])
    sharded = shards_weights(settings.shard_weights, model.denoiser, mesh)
    return Grid(
        denoiser=place_weights(model.denoiser, mesh, sharded=sharded),
        schedule=replicate(model.schedule.in_space(settings.space), mesh),
        noise=replicate(_noise(settings, latent_shape), mesh),
        losses=losses,
        cells=settings.cells or cells_that_fit(needs, mesh),
        mesh=mesh,
        sharded=sharded,
    )


def _noise(
    settings: Settings, latent_shape: tuple[int, int, int]
) -> SeededNoise | NoiseTable:
    noise = settings.noise
    if noise in ("image", "shared"):
        return SeededNoise.of(settings.seed, shared=noise == "shared")
    return read_noise(Path(noise), latent_shape)
