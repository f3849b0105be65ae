"""Where the noise of a sample comes from: a seed, or a file.

    ε(image, k) = normal(fold_in(fold_in(key(seed), image), k))        (seeded)
    ε(image, k) = table[k]                                             (file)

k is the sample's noise index. The class enters nowhere: all classes share ε. Nor do
JAX's settings, of which several change what a seed draws: the generator is named, its
key made of the seed alone, and the draw traced under ``tracing.pinned``.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from diffjax.data.arrays import read_npy, read_npz
from diffjax.errors import DiffjaxError
from diffjax.files import regular_file
from diffjax.tracing import pinned

GENERATOR = "threefry2x32"


def seed_key(seed: int | np.integer) -> Array:
    """The key of a seed, of which 32 bits count: what JAX makes of it by default.

    Not ``jax.random.key``, to which JAX_RANDOM_SEED_OFFSET adds, and which looks at the
    seed's upper bits under JAX_ENABLE_X64.
    """
    words = np.array([0, int(seed) % 2**32], np.uint32)
    key: Array = jax.random.wrap_key_data(jax.device_put(words), impl=GENERATOR)
    return key


def normal(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard normal numbers, float32, the same under all of JAX's settings."""
    with pinned():
        return jax.random.normal(key, shape, jnp.float32)


@partial(jax.tree_util.register_dataclass, data_fields=["key"], meta_fields=["shared"])
@dataclass(frozen=True)
class SeededNoise:
    """Standard normal noise, a pure function of (seed, image, k).

    ``shared`` leaves the image out, so that all images have the same noise.
    """

    key: Any  # Array; JAX rebuilds pytrees with placeholders in its place
    shared: bool = False

    @classmethod
    def of(cls, seed: int, *, shared: bool = False) -> "SeededNoise":
        """Noise of a run with this seed."""
        return cls(seed_key(seed), shared)

    def draw(
        self,
        image: int | UInt32[Array, ""],
        k: int | Int[Array, ""],
        shape: tuple[int, ...],
    ) -> Float[Array, "..."]:
        """ε of an image's noise index k, float32."""
        with pinned():
            key = jax.random.fold_in(self.key, 0 if self.shared else image)
            return normal(jax.random.fold_in(key, k), shape)

    def check(self, noises: Int[np.ndarray, " s"]) -> None:
        """Every index can be drawn."""


@partial(
    jax.tree_util.register_dataclass, data_fields=["table"], meta_fields=["source"]
)
@dataclass(frozen=True)
class NoiseTable:
    """Noise read from a file, [n, h, w, c]; shared by all images."""

    table: Any  # Array
    source: str

    def draw(
        self,
        image: int | UInt32[Array, ""],
        k: int | Int[Array, ""],
        shape: tuple[int, ...],
    ) -> Float[Array, "..."]:
        """ε of noise index k, float32; the same for every image."""
        row: Array = self.table[k]
        return row.reshape(shape)

    def check(self, noises: Int[np.ndarray, " s"]) -> None:
        """Refuse an index past the end.

        Raises:
            DiffjaxError: naming the file. (Inside jit it would be clamped silently.)
        """
        if noises.size and noises.max() >= self.table.shape[0]:
            raise DiffjaxError(
                f"{self.source} holds {self.table.shape[0]} noises, but the strategy "
                f"asks for index {noises.max()}; use fewer samples or a longer file"
            )


Noise = SeededNoise | NoiseTable


@partial(
    jax.tree_util.register_dataclass, data_fields=["noise", "image"], meta_fields=[]
)
@dataclass(frozen=True)
class ImageNoise:
    """The noise of one image."""

    noise: Any  # Noise
    image: Any  # its number, uint32

    def draw(
        self, k: int | Int[Array, ""], shape: tuple[int, ...]
    ) -> Float[Array, "..."]:
        """ε of noise index k, float32."""
        drawn: Array = self.noise.draw(self.image, k, shape)
        return drawn

    def check(self, noises: Int[np.ndarray, " s"]) -> None:
        """Refuse noise indices that cannot be drawn."""
        self.noise.check(noises)


def read_noise(path: Path, latent_shape: tuple[int, int, int]) -> NoiseTable:
    """Read noises from a .npy, .npz or .safetensors file of one array.

    Args:
        path: holds one array, [n, h, w, c] or torch's [n, c, h, w].
        latent_shape: (h, w, c) of the model.

    Raises:
        DiffjaxError: if the file is missing, damaged, or of another shape.
    """
    path = regular_file(path, "noise file")
    try:
        array = _read_array(path)
    except DiffjaxError:
        raise
    except Exception as error:  # numpy and safetensors raise many kinds
        raise DiffjaxError(f"{path}: not a readable noise file ({error})") from error
    if array.dtype.kind != "f":
        raise DiffjaxError(f"{path}: noise of type {array.dtype}; expected floats.")
    h, w, c = latent_shape
    if array.shape[1:] == (h, w, c):
        table = array
    elif array.shape[1:] == (c, h, w):
        table = array.transpose(0, 2, 3, 1)
    else:
        raise DiffjaxError(
            f"{path}: noise of shape {list(array.shape)}; this model's latents need "
            f"[n, {h}, {w}, {c}] or [n, {c}, {h}, {w}]"
        )
    if not np.isfinite(table).all():
        raise DiffjaxError(f"{path}: some noises are not finite numbers")
    return NoiseTable(jax.device_put(table.astype(np.float32)), str(path))


def _read_array(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return read_npy(path)
    if path.suffix == ".npz":
        arrays = read_npz(path)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        arrays = load_file(path)
    else:
        raise DiffjaxError(f"{path}: a noise file is .npy, .npz or .safetensors")
    if len(arrays) != 1:
        raise DiffjaxError(f"{path} holds {len(arrays)} arrays, expected one")
    return next(iter(arrays.values()))
