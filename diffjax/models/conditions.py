"""Conditions: what a denoiser is told besides z_t and t, as trees of arrays.

    one class   a tree whose leaves are what the network file says: states [l, d], a
                mask [l] of booleans, a class id []
    n classes   the same tree, each leaf stacked over n rows

Floating leaves are vectors: they have means and gradients. Leaves of integers and
booleans (ids, sizes, masks) have neither. Where conditions are averaged to stand for a
class, such leaves must be equal. Where a mean is but a point to look from, it takes
those of the row that is nearest to it.

A leaf that no prompt decides, as an original image's size, is None in the condition of
a class. An image tells it: a dict, from names of leaves to arrays, which ``told_of``
puts in. Most networks are told nothing by an image, for which the dict is empty.

A denoiser's module is called with (z_t, time, condition), and tells, besides the bytes
that a forward pass takes (``memory``), how its conditions can be vectors (``vectors``:
a class id becomes its row of a table), and their shapes (``condition_shapes``).
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def is_floating(leaf: Any) -> bool:
    """Whether a leaf, or its shape, is of floating numbers."""
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def floating(tree: Any) -> list[Any]:
    """The floating leaves, in the tree's order."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_floating(leaf)]


def with_floating(tree: Tree, leaves: Iterable[Any]) -> Tree:
    """The tree with others in place of its floating leaves, in its order."""
    new = iter(leaves)
    changed: Tree = jax.tree.map(
        lambda leaf: next(new) if is_floating(leaf) else leaf, tree
    )
    return changed


def in_dtype(tree: Tree, dtype: Any) -> Tree:
    """The tree, or its shapes, with floating leaves of this number type."""

    def cast(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, dtype)
        return leaf.astype(dtype)

    return with_floating(tree, map(cast, floating(tree)))


def count(rows: Any) -> int:
    """How many rows a tree has."""
    return int(jax.tree.leaves(rows)[0].shape[0])


def take(rows: Tree, index: Any) -> Tree:
    """Rows by their numbers: one, or an array of any shape."""
    taken: Tree = jax.tree.map(lambda leaf: leaf[index], rows)
    return taken


def told_of(condition: Any, image: Mapping[str, Any]) -> Any:
    """The condition of a class, with the leaves that an image tells besides."""
    return condition._replace(**image) if image else condition


def shapes(rows: Tree) -> Tree:
    """Shapes of one row."""
    one: Tree = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows
    )
    return one


def centre(rows: Tree) -> Tree:
    """The mean row; leaves without a mean are those of the row nearest to it."""
    given = floating(rows)
    means = [leaf.mean(axis=0) for leaf in given]
    others = len(given) < len(jax.tree.leaves(rows))
    nearest = _nearest(given, means) if others else 0
    return with_floating(take(rows, nearest), means)


def _nearest(rows: list[Any], point: list[Any]) -> Any:
    squares = (
        jnp.square(leaf - mean).reshape(len(leaf), -1).sum(axis=1)
        for leaf, mean in zip(rows, point, strict=True)
    )
    return jnp.argmin(sum(squares, jnp.zeros(())))
