"""Published denoisers with random weights, for measuring speed without a download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from diffjax.checkpoints.catalog import ASSETS, BARE
from diffjax.checkpoints.networks import empty_network, kind_of, read_json
from diffjax.errors import unknown
from diffjax.models.conditions import floating, with_floating
from diffjax.models.network import Network

UNTRAINED: dict[str, tuple[str, Path]] = {  # the component, and its config
    "tiny": ("unet", ASSETS / "tiny" / "unet" / "config.json"),
    "sd-1.5": ("unet", ASSETS / "configs" / "sd-1.5.json"),
    "sd-2-base": ("unet", ASSETS / "configs" / "sd-2-base.json"),
    "sdxl": ("unet", ASSETS / "configs" / "sdxl.json"),
    "sd-3-medium": ("transformer", ASSETS / "configs" / "sd-3-medium.json"),
    "sd-3.5-medium": ("transformer", ASSETS / "configs" / "sd-3.5-medium.json"),
    "sd-3.5-large": ("transformer", ASSETS / "configs" / "sd-3.5-large.json"),
    "flux-dev": ("transformer", ASSETS / "configs" / "flux-dev.json"),
    "pixart-sigma": ("transformer", ASSETS / "configs" / "pixart-sigma.json"),
    "dit-256": ("transformer", ASSETS / "configs" / "dit-256.json"),
    **{
        name: ("transformer", BARE / name / "transformer" / "config.json")
        for name in ("sit-s-2-256", "sit-b-2-256", "sit-xl-2-256")
    },
}


@dataclass(frozen=True, kw_only=True)
class Untrained:
    """A denoiser that computes as the published one does, and predicts nothing.

    Attributes:
        config: of its network.
        network: with random weights, or their shapes alone.
        conditions: a random one, a tree of one row.
    """

    config: Any
    network: Network
    conditions: Any


def untrained(
    name: str, dtype: DTypeLike = jnp.float32, *, weights: bool = True
) -> Untrained:
    """A denoiser of its published size.

    Args:
        name: a key of ``UNTRAINED``.
        dtype: of computation and weights; norms stay in float32.
        weights: whether to draw them; to compile, their shapes suffice.

    Raises:
        DiffjaxError: if there is no such name.
    """
    if name not in UNTRAINED:
        raise unknown("random model", name, UNTRAINED)
    component, path = UNTRAINED[name]
    raw = read_json(path)
    config = kind_of(component, raw["_class_name"]).config.from_dict(raw, str(path))
    network = (
        random_network(config, dtype)
        if weights
        else Network(*empty_network(config, dtype))
    )
    shapes = network.module().condition_shapes()
    zeros = jax.tree.map(lambda leaf: np.zeros((1, *leaf.shape), leaf.dtype), shapes)
    rng = np.random.default_rng(0)
    drawn = [rng.standard_normal(x.shape, np.float32) for x in floating(zeros)]
    return Untrained(
        config=config,
        network=network,
        conditions=with_floating(zeros, drawn),
    )


def random_network(
    config: Any, dtype: DTypeLike = jnp.float32, seed: int = 0
) -> Network:
    """A network whose activations keep their size: kernels have variance 1 / fan-in.

    Drawn on the host: the initialisers of a U-Net take minutes to compile.

    Args:
        config: of one of ``networks.NETWORKS``.
        dtype: of computation and weights; norms stay in float32.
        seed: of the weights.
    """
    graphdef, abstract = empty_network(config, dtype)
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: Any) -> Any:
        value = rng.standard_normal(leaf.shape, np.float32)
        value *= max(1, int(np.prod(leaf.shape[:-1]))) ** -0.5
        if path[-1] == "scale":
            value += 1
        return leaf.replace(jnp.asarray(value, leaf.dtype))

    drawn = [(path, draw(path, leaf)) for path, leaf in nnx.to_flat_state(abstract)]
    return Network(graphdef, nnx.from_flat_state(drawn))
