"""Where the gradients of the first-order estimate are taken.

    mean           one base: the mean of all classes' conditions
    unconditional  one base: the empty prompt, or a class-conditional model's null class
    clusters       a base a cluster, the mean of its classes, found by k-means; each
                   class is estimated from its own cluster's mean

They depend on the classes alone, so they are made once for many images. Means are of
floating leaves, and clusters of all of them together; see ``models.conditions`` for the
others.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.vq import kmeans2

from diffjax.errors import unknown
from diffjax.models.conditions import centre, count, floating, take

BASES = ("mean", "unconditional", "clusters")
ITERATIONS = 20  # of k-means


@dataclass(frozen=True, eq=False)
class Bases:
    """Bases, and which of them each class is estimated from.

    Attributes:
        points: the m bases, a tree of rows.
        nearest: the base of each class, 0 to m − 1.
    """

    points: Any
    nearest: Int[np.ndarray, " n"]


def make_bases(
    name: str,
    vectors: Any,
    unconditional: Callable[[], Any],
    n_clusters: int,
) -> Bases:
    """The bases of a name.

    Args:
        name: of ``BASES``.
        vectors: conditions of the classes, a tree of rows.
        unconditional: makes the one that stands for no class, a tree of one row.
        n_clusters: for "clusters", at most.

    Raises:
        DiffjaxError: if there are no bases of that name.
    """
    n = count(vectors)
    alone = np.zeros(n, int)
    if name == "mean":
        return Bases(_stacked([centre(vectors)]), alone)
    if name == "unconditional":
        return Bases(unconditional(), alone)
    if name == "clusters":
        vectors = jax.tree.map(np.asarray, vectors)
        points = [leaf.reshape(n, -1) for leaf in floating(vectors)]
        labels = k_means(np.concatenate(points, axis=1), n_clusters)
        members = [labels == j for j in range(labels.max() + 1)]
        return Bases(_stacked([centre(take(vectors, m)) for m in members]), labels)
    raise unknown("base", name, BASES)


def _stacked(points: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)


def k_means(
    points: Float[np.ndarray, "n d"], k: int, seed: int = 0
) -> Int[np.ndarray, " n"]:
    """The cluster of each point, 0 to m − 1; none is empty, and m ≤ k.

    SciPy's, from the seeds of k-means++ (Arthur and Vassilvitskii 2007). There are
    fewer clusters than k where there are fewer points that differ.
    """
    points = points - points.mean(axis=0)  # what all share would cost digits below
    k = min(k, len(np.unique(points, axis=0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # empty ones are left out below
        _, labels = kmeans2(points, k, ITERATIONS, minit="++", rng=seed)
    return np.unique(labels, return_inverse=True)[1]
