"""Trees of conditions: means of what has one, and the nearest of what has none."""

import jax
import jax.numpy as jnp
import numpy as np
import several

from diffjax.models.conditions import centre, count, floating, in_dtype, shapes, take


def test_a_mean_takes_other_leaves_from_the_row_nearest_to_it():
    rows = several.conditions(6)
    found = centre(rows)
    np.testing.assert_allclose(found.states, rows.states.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.pooled, rows.pooled.mean(axis=0), rtol=1e-5)
    flat = [leaf.reshape(6, -1) for leaf in floating(rows)]
    both = np.concatenate(flat, axis=1)
    nearest = np.square(both - both.mean(axis=0)).sum(axis=1).argmin()
    assert found.length == rows.length[nearest]
    np.testing.assert_array_equal(found.mask, rows.mask[nearest])
    # in any order of the rows
    again = centre(take(rows, np.array([3, 5, 0, 1, 4, 2])))
    assert again.length == found.length


def test_number_types_are_of_floating_leaves_alone():
    rows = several.conditions(3)
    for tree in (rows, shapes(rows)):
        found = in_dtype(tree, jnp.bfloat16)
        assert [str(leaf.dtype) for leaf in found] == [
            *("bfloat16", "bfloat16", "bool", "int32"),
        ]
    assert count(rows) == 3
    assert jax.tree.map(jnp.shape, take(rows, 1)) == several.Told(
        (6, 8), (8,), (6,), ()
    )
