import jax.numpy as jnp
import numpy as np
import pytest
from small import jax_random

from diffjax.errors import DiffjaxError
from diffjax.scoring.bases import BASES, k_means, make_bases

VECTORS = jax_random(12, 3, 4)


def nothing():
    return 7 * jnp.ones((1, 3, 4))


def test_one_base():
    mean = make_bases("mean", VECTORS, nothing, 5)
    np.testing.assert_allclose(mean.points, VECTORS.mean(axis=0)[None], rtol=1e-6)
    none = make_bases("unconditional", VECTORS, nothing, 5)
    np.testing.assert_array_equal(none.points, nothing())
    for bases in (mean, none):
        assert (bases.nearest == 0).all()


def test_every_name_works_and_others_are_refused():
    for name in BASES:
        bases = make_bases(name, VECTORS, nothing, 3)
        assert bases.points.shape == (bases.nearest.max() + 1, 3, 4)
        assert bases.nearest.shape == (12,)
    with pytest.raises(DiffjaxError, match="clusters"):
        make_bases("median", VECTORS, nothing, 3)


def test_clusters_are_means_of_their_classes():
    centres = 50 * jax_random(4, 3, 4, seed=1)
    truth = np.array([0, 1, 2, 3, 3, 2, 1, 0, 0, 0, 2, 1])
    bases = make_bases("clusters", centres[truth] + VECTORS, nothing, 4)
    same = bases.nearest[:, None] == bases.nearest
    np.testing.assert_array_equal(same, truth[:, None] == truth)
    for j, point in enumerate(bases.points):
        mine = (centres[truth] + VECTORS)[bases.nearest == j]
        np.testing.assert_allclose(point, mine.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 7, 40, 100])
def test_k_means_leaves_no_cluster_empty(k):
    points = np.random.default_rng(0).standard_normal((40, 5), np.float32)
    labels = k_means(points, k)
    assert set(labels) == set(range(labels.max() + 1))
    assert labels.max() < min(k, 40)
    assert len(set(labels)) > min(k, 40) * 0.6
    np.testing.assert_array_equal(labels, k_means(points, k))  # no chance in it
    centres = np.stack([points[labels == j].mean(0) for j in range(labels.max() + 1)])
    distances = np.square(points[:, None] - centres).sum(-1)
    own = distances[np.arange(40), labels]
    assert (own <= distances.min(axis=1) + 1e-4).all()  # it has converged


def test_copies_are_one_cluster():
    points = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    assert len(set(k_means(points, 8))) == 3
    assert set(k_means(np.ones((5, 2), np.float32), 4)) == {0}
