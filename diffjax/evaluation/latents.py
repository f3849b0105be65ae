"""Latents of images, a batch at a time, and a folder that keeps them.

z0 is kept under a digest of the autoencoder's weights and config and of the pixels,
which changes with the model, the image and the preprocessing, and with nothing else.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.data.kept import KeptArrays, digest_of
from diffjax.tracing import pinned

BATCH = 8  # images in one call of the autoencoder


class Latents:
    """Computes latents, or takes them from a folder."""

    def __init__(self, classifier: DiffusionClassifier, folder: Path | None) -> None:
        """``folder`` may be None, for no cache, or not exist yet."""
        self._model = classifier.model
        self._like = {"z0": np.empty(classifier.latent_shape, np.float32)}
        self._kept = None if folder is None else KeptArrays(folder, "latents")
        self._prefix = ""
        if folder is not None:
            self._prefix = self._model.autoencoder.fingerprint
            self._prefix += f" {self._model.scaling_factor!r}"
            self._prefix += f" {self._model.configs.get('vae')}"

    @pinned()
    def of(
        self, pixels: Sequence[Float[np.ndarray, "H W 3"]]
    ) -> list[Float[np.ndarray, "h w c"]]:
        """z0 of each image; those that are not kept are computed in one call."""
        found = [self._read(image) for image in pixels]
        missing = [i for i, latent in enumerate(found) if latent is None]
        if missing:
            # always as many: another number would be compiled anew
            batch = np.stack([pixels[i] for i in missing])
            padding = [(0, -len(batch) % BATCH)] + [(0, 0)] * 3
            computed = np.asarray(self._model.latents(np.pad(batch, padding)))
            for i, latent in zip(missing, computed[: len(missing)], strict=True):
                found[i] = latent
                if self._kept is not None:
                    self._kept.put(self._name(pixels[i]), {"z0": latent})
        return [latent for latent in found if latent is not None]

    def _name(self, image: Float[np.ndarray, "H W 3"]) -> str:
        return digest_of(
            self._prefix, f"{image.shape}", np.ascontiguousarray(image, np.float32)
        )

    def _read(
        self, image: Float[np.ndarray, "H W 3"]
    ) -> Float[np.ndarray, "h w c"] | None:
        if self._kept is None:
            return None
        kept = self._kept.get(self._name(image), self._like)
        return None if kept is None else kept["z0"]
