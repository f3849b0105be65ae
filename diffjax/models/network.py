"""A network's structure and weights, to hand through jit, print and read again."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import numpy as np
from flax import nnx

from diffjax.models.conditions import floating


@partial(
    jax.tree_util.register_dataclass, data_fields=["state"], meta_fields=["graphdef"]
)
@dataclass(frozen=True)
class Network:
    """A module split into structure and weights: a pytree to hand through jit.

    A module that jit closed over would compile its weights in as constants.
    """

    graphdef: Any
    state: Any

    @classmethod
    def of(cls, module: nnx.Module) -> "Network":
        """Split a module."""
        return cls(*nnx.split(module))

    def module(self) -> Any:
        """The module again, inside or outside of jit."""
        return nnx.merge(self.graphdef, self.state)

    def leaves(self) -> list[tuple[str, np.ndarray]]:
        """The weights by name, sorted, on the host."""
        flat = jax.tree_util.tree_leaves_with_path(self.state)
        names = [(jax.tree_util.keystr(path), leaf) for path, leaf in flat]
        return [
            (name, jax.device_get(leaf))
            for name, leaf in sorted(names, key=itemgetter(0))
        ]

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the weights."""
        digest = hashlib.sha256()
        for path, leaf in self.leaves():
            digest.update(f"{path} {leaf.shape} {leaf.dtype}".encode())
            digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()[:16]

    @property
    def layout(self) -> list[str]:
        """Names, shapes and number types of the weights, sorted."""
        flat = jax.tree_util.tree_leaves_with_path(self.state)
        return sorted(
            f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}"
            for path, leaf in flat
        )

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(int(leaf.size) for leaf in jax.tree.leaves(self.state))

    @property
    def bytes(self) -> int:
        """That its weights take."""
        leaves = jax.tree.leaves(self.state)
        return sum(int(leaf.size) * leaf.dtype.itemsize for leaf in leaves)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its largest weight, of floating numbers; float32 without any."""
        weights = floating(self.state)
        largest = max(weights, key=lambda leaf: leaf.size, default=np.float32(0))
        dtype: np.dtype[Any] = np.dtype(largest.dtype)
        return dtype


def digest(parts: Iterable[str], digits: int = 16) -> str:
    """So many hex digits of texts."""
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:digits]


class OnDemand:
    """A network that is read when it is needed, and again after it was let go.

    Attributes:
        shapes: the network without memory: shapes in place of weights.
        keep: whether it is never let go once it was read.
    """

    def __init__(
        self,
        read: Callable[[], Network],
        shapes: Network,
        *,
        keep: bool = False,
        fingerprint: str | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            read: reads it, into the host's memory or a device's.
            shapes: what it will read, as shapes.
            keep: not to let it go once it was read.
            fingerprint: of the weights, where it is known without reading them.
        """
        self.shapes = shapes
        self._read = read
        self.keep = keep
        self._host: Network | None = None
        self._network: Network | None = None
        self._fingerprint = fingerprint

    def __call__(self) -> Network:
        """The network on the device; it is read if it is not at hand."""
        if self._network is None:
            self._network = jax.device_put(self.on_host())
            self._host = None
        return self._network

    def on_host(self) -> Network:
        """The network wherever it is, and in the host's memory if it was nowhere.

        To look at weights, or complain of them, takes nothing of a device that is
        still to be filled.
        """
        if self._network is not None:
            return self._network
        if self._host is None:
            self._host = self._read()
        return self._host

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the weights."""
        if self._fingerprint is None:
            self._fingerprint = self.on_host().fingerprint
        return self._fingerprint

    def let_go(self) -> None:
        """Free its memory as soon as nobody else has it, unless it is to be kept."""
        if not self.keep:
            self._network = self._host = None
