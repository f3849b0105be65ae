"""Where the gradients of the first-order estimate are taken.

    mean           one base: the mean of all classes' conditions
    unconditional  one base: the empty prompt, or a class-conditional model's null class
    clusters       a base a cluster, the mean of its classes, found by k-means; each
                   class is estimated from its own cluster's mean

They depend on the classes alone, so they are made once for many images.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.cluster.vq import kmeans2

from diffjax.errors import unknown

BASES = ("mean", "unconditional", "clusters")
ITERATIONS = 20  # of k-means


@dataclass(frozen=True, eq=False)
class Bases:
    """Bases, and which of them each class is estimated from.

    Attributes:
        points: the m bases.
        nearest: the base of each class, 0 to m − 1.
    """

    points: Float[Array, "m ..."]
    nearest: Int[np.ndarray, " n"]


def make_bases(
    name: str,
    vectors: Float[Array, "n ..."],
    unconditional: Callable[[], Float[Array, "..."]],
    n_clusters: int,
) -> Bases:
    """The bases of a name.

    Args:
        name: of ``BASES``.
        vectors: conditions of the classes.
        unconditional: makes the condition that stands for no class.
        n_clusters: for "clusters", at most.

    Raises:
        DiffjaxError: if there are no bases of that name.
    """
    alone = np.zeros(len(vectors), int)
    if name == "mean":
        return Bases(jnp.mean(vectors, axis=0, keepdims=True), alone)
    if name == "unconditional":
        return Bases(unconditional()[None], alone)
    if name == "clusters":
        points = np.asarray(vectors)
        labels = k_means(points.reshape(len(points), -1), n_clusters)
        m = labels.max() + 1
        means = np.stack([points[labels == j].mean(axis=0) for j in range(m)])
        return Bases(jnp.asarray(means), labels)
    raise unknown("base", name, BASES)


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
