"""What a loaded model makes of fixed inputs."""

import numpy as np
import pipelines
from pipelines import decode, denoise, normal

from diffjax.models.unet import TextCondition

STEMS = {
    "unet": "diffusion_pytorch_model",
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}


def outputs(model):
    """What a model makes of fixed inputs: a prediction, an image, text states."""
    condition = TextCondition(normal(1, 5, pipelines.TEXT["hidden_size"]))
    latents = normal(1, 8, 8, 4)
    return (
        denoise(model.denoiser, latents, np.int32([500]), condition),
        model.latent(normal(16, 16, 3)),
        decode(model.autoencoder, latents),
        model.conditioner.encode(["the cat"])[0].states,
    )


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
