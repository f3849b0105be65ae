"""Trees that somebody else made, held by a module of ours: arrays become weights."""

import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array


class Held(nnx.Module):
    """Any pytree, its arrays as weights of a module and the rest as structure."""

    def __init__(self, tree: Any) -> None:
        leaves, structure = jax.tree.flatten(_unbound(tree))
        arrays = [leaf for leaf in leaves if _is_array(leaf)]
        self.arrays = nnx.List([nnx.Param(_numbers(leaf)) for leaf in arrays])
        self.rest = _Rest(structure, leaves)

    def tree(self) -> Any:
        """The tree again."""
        return self.rest.join([each[...] for each in self.arrays])


class _Rest:
    """What of a tree is no array. Equal to itself alone, it need not be hashable."""

    def __init__(self, structure: Any, leaves: list[Any]) -> None:
        self._structure = structure
        self._leaves = [None if _is_array(leaf) else leaf for leaf in leaves]
        # the place of each array, and of a random key its kind
        self._places = {
            i: jax.random.key_impl(leaf) if _is_key(leaf) else None
            for i, leaf in enumerate(leaves)
            if _is_array(leaf)
        }

    def join(self, arrays: list[Any]) -> Any:
        leaves = list(self._leaves)
        for (place, kind), array in zip(self._places.items(), arrays, strict=True):
            of_key = kind is not None
            leaves[place] = (
                jax.random.wrap_key_data(array, impl=kind) if of_key else array
            )
        return jax.tree.unflatten(self._structure, leaves)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _numbers(leaf: Any) -> Array:
    """An array on a device; a random key as the numbers that it is."""
    return jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf)


def _unbound(tree: Any) -> Any:
    """The tree; of a function, one that has what is bound to it."""
    if isinstance(tree, functools.partial):
        function: Any = _unbound(tree.func)
        bound: tuple[Any, ...] = ()
        if isinstance(function, Partial):  # one within another would be no tree
            function, bound = function.func, function.args
        return Partial(function, *bound, *tree.args, **tree.keywords)
    if isinstance(tree, types.MethodType):
        return Partial(tree.__func__, tree.__self__)
    return tree
