"""What a loaded model makes of fixed inputs."""

import numpy as np
import pipelines
from pipelines import decode, denoise, encode_text, normal

STEMS = {
    "unet": "diffusion_pytorch_model",
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}


def outputs(model):
    """What a model makes of fixed inputs: a prediction, an image, text states."""
    condition = normal(1, 5, pipelines.TEXT["hidden_size"])
    latents = normal(1, 8, 8, 4)
    return (
        denoise(model.denoiser, latents, np.int32([500]), condition),
        model.latent(normal(16, 16, 3)),
        decode(model.autoencoder, latents),
        encode_text(model.text_encoder, model.tokenize(["the cat"]).ids),
    )


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
