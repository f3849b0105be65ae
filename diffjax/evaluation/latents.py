"""Latents of images, a batch at a time, and a folder that keeps them.

    CACHE/ab/abcdef….npz      z0 of one image, float32 [h, w, c], with a checksum

The name is a digest of the autoencoder's weights and config and of the pixels, so it
changes with the model, the image and the preprocessing, and with nothing else.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.data.arrays import read_npz
from diffjax.errors import DiffjaxError
from diffjax.files import atomic
from diffjax.tracing import pinned

BATCH = 8  # images in one call of the autoencoder


class Latents:
    """Computes latents, or takes them from a folder."""

    def __init__(self, classifier: DiffusionClassifier, folder: Path | None) -> None:
        """``folder`` may be None, for no cache, or not exist yet."""
        self._model = classifier.model
        self._folder = folder
        self._shape = classifier.latent_shape
        self._prefix = ""
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DiffjaxError(
                    f"The folder {folder} for latents cannot be made "
                    f"({error.strerror}). Choose another one."
                ) from error
            self._prefix = self._model.autoencoder.fingerprint
            self._prefix += f" {self._model.scaling_factor!r}"
            self._prefix += f" {self._model.configs.get('vae')}"

    @pinned()
    def of(
        self, pixels: Sequence[Float[np.ndarray, "H W 3"]]
    ) -> list[Float[np.ndarray, "h w c"]]:
        """z0 of each image; those that are not kept are computed in one call."""
        paths = [self._path(image) for image in pixels]
        found = [self._read(path) for path in paths]
        missing = [i for i, latent in enumerate(found) if latent is None]
        if missing:
            # always as many: another number would be compiled anew
            batch = np.stack([pixels[i] for i in missing])
            padding = [(0, -len(batch) % BATCH)] + [(0, 0)] * 3
            computed = np.asarray(self._model.latents(np.pad(batch, padding)))
            for i, latent in zip(missing, computed[: len(missing)], strict=True):
                found[i] = latent
                self._write(paths[i], latent)
        return [latent for latent in found if latent is not None]

    def _path(self, image: Float[np.ndarray, "H W 3"]) -> Path | None:
        if self._folder is None:
            return None
        digest = hashlib.sha256(self._prefix.encode())
        digest.update(f"{image.shape}".encode())
        digest.update(np.ascontiguousarray(image, np.float32).tobytes())
        name = digest.hexdigest()[:32]
        return self._folder / name[:2] / f"{name}.npz"

    def _read(self, path: Path | None) -> Float[np.ndarray, "h w c"] | None:
        if path is None or not path.exists():
            return None
        try:
            latent = read_npz(path)["z0"]
        except (DiffjaxError, KeyError):
            return None  # computed again and written over
        fits = latent.shape == self._shape and latent.dtype == np.float32
        return latent if fits and np.isfinite(latent).all() else None

    def _write(self, path: Path | None, latent: Float[np.ndarray, "h w c"]) -> None:
        if (
            path is None or not np.isfinite(latent).all()
        ):  # it fails; no need to keep it
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as partial, partial.open("wb") as file:
            np.savez(file, z0=latent)
