import subprocess
import sys
import types
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import several
from small import (
    SCHEDULE,
    TOKENS,
    WIDTH,
    class_denoiser,
    jax_random,
    text_denoiser,
)

from diffjax.models.conditions import count, take
from diffjax.models.unet import TextCondition
from diffjax.schedules import add_noise
from diffjax.scoring.grid import Blocks, Grid, block_errors, cell_errors
from diffjax.scoring.noise import SeededNoise
from diffjax.scoring.packing import Cells, Packer
from diffjax.scoring.placement import (
    block_mesh,
    cells_that_fit,
    place_weights,
    replicate,
)

KEYS = Path(__file__).parents[1] / "goldens" / "keys"
CLASSES, SAMPLES = 5, 7
Z0 = jax_random(8, 8, 4, seed=1)
STATES = TextCondition(jax_random(CLASSES, TOKENS, WIDTH, seed=2))
# a condition of one leaf, and one of several: floats, integers and booleans
CASES = {
    "one": (text_denoiser, lambda: STATES),
    "several": (several.denoiser, lambda: several.conditions(CLASSES)),
}
TIMESTEPS = np.array([0, 1, 250, 500, 750, 998, 999])
NOISES = np.array([3, 0, 1, 2, 6, 5, 4])
NOISE, IMAGE = SeededNoise.of(0), 17


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def denoiser(case):
    return CASES[case][0]()


@pytest.fixture(scope="module")
def conditions(case):
    return CASES[case][1]()


def grid(denoiser, cells=10, losses=("l2",), devices=1, sharded=False):
    mesh = block_mesh(jax.local_devices()[:devices])
    return Grid(
        denoiser=place_weights(denoiser, mesh, sharded=sharded),
        schedule=replicate(SCHEDULE, mesh),
        noise=replicate(NOISE, mesh),
        losses=losses,
        cells=cells,
        mesh=mesh,
        sharded=sharded,
    )


def blocks(classes, timesteps=TIMESTEPS, noises=NOISES, z0=Z0):
    """A block a sample, all under the same classes."""
    n = len(timesteps)
    return Blocks(
        keys=np.full(n, IMAGE, np.uint32),
        z0=np.broadcast_to(z0, (n, *z0.shape)),
        timesteps=np.asarray(timesteps, np.int32),
        noises=np.asarray(noises, np.int32),
        classes=np.tile(np.asarray(classes, np.int32), (n, 1)),
    )


def errors(grid, conditions, classes=None, **cells):
    """[classes, samples], by the packer."""
    every = np.arange(count(conditions))
    classes = every if classes is None else classes
    [found] = evaluate(grid, conditions, [(classes, cells)])
    return found[0]


def evaluate(grid, conditions, asked, width=CLASSES):
    """[l, n, s] of each (classes, samples) asked for, in a search of its own."""
    searches = [
        Asks(classes, **({"timesteps": TIMESTEPS, "noises": NOISES} | cells))
        for classes, cells in asked
    ]
    packer = Packer(grid, replicate(conditions, grid.mesh), width)
    assert set(map(id, packer.run(iter(searches)))) == set(map(id, searches))
    return [search.errors for search in searches]


class Asks:
    """A search that asks once."""

    key, seconds = IMAGE, 0.0
    told = types.MappingProxyType({})

    def __init__(self, classes, timesteps, noises):
        self.z0 = np.asarray(Z0)
        self.errors, self.cells = None, 0
        self.asked = Cells(np.asarray(classes), timesteps, noises)

    def request(self):
        return self.asked if self.errors is None else None

    def receive(self, errors):
        self.errors = errors

    def advance(self, cells):
        self.cells += cells


@pytest.fixture(scope="module")
def expected(denoiser, conditions):
    """Every cell on its own, without vmap."""
    cell = jax.jit(cell_errors, static_argnames="losses")
    table = np.zeros((CLASSES, SAMPLES))
    for c in range(CLASSES):
        for s, (t, k) in enumerate(zip(TIMESTEPS, NOISES, strict=True)):
            noise = NOISE.draw(IMAGE, jnp.int32(k), Z0.shape)
            [table[c, s]] = cell(
                denoiser,
                SCHEDULE,
                Z0,
                take(conditions, c),
                jnp.int32(t),
                noise,
                losses=("l2",),
            )
    return table


def test_a_grid_equals_a_plain_loop(denoiser, conditions, expected):
    assert np.std(expected, axis=0).min() > 1e-4  # the class matters
    np.testing.assert_allclose(errors(grid(denoiser), conditions), expected, rtol=1e-5)


@pytest.mark.parametrize("cells", [1, 3, 8, 64])
def test_a_cell_does_not_depend_on_the_tile(denoiser, conditions, expected, cells):
    found = errors(grid(denoiser, cells), conditions)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_cell_does_not_depend_on_neighbours_or_order(denoiser, conditions, expected):
    g = grid(denoiser)
    classes, samples = np.array([4, 0, 3]), np.array([6, 2, 5, 0])
    samples_of = {"timesteps": TIMESTEPS[samples], "noises": NOISES[samples]}
    some = errors(g, conditions, classes, **samples_of)
    np.testing.assert_allclose(some, expected[np.ix_(classes, samples)], rtol=1e-5)


def test_two_devices_give_the_same_answer(denoiser, conditions, expected):
    assert jax.local_device_count() >= 2
    two = errors(grid(denoiser, devices=2), conditions)
    np.testing.assert_allclose(two, expected, rtol=1e-5)


EIGHT = """
import jax
jax.config.update("jax_num_cpu_devices", 8)
import numpy as np, test_grid
from diffjax.scoring import placement
placement.SMALLEST_SPLIT = 64
denoiser, conditions = (make() for make in test_grid.CASES[{case!r}])
grids = [test_grid.grid(denoiser, devices=8, sharded=s) for s in (False, True)]
split = jax.tree.leaves(grids[1].denoiser)
assert sum(not leaf.sharding.is_fully_replicated for leaf in split) > 20
np.save({path!r}, [test_grid.errors(grid, conditions) for grid in grids])
"""


def test_eight_devices_give_the_same_answer(case, expected, tmp_path):
    """With copies of the weights on each, and with the weights split among them."""
    path = tmp_path / "tables.npy"
    code = EIGHT.format(case=case, path=str(path))
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
    for table in np.load(path):
        np.testing.assert_allclose(table, expected, rtol=1e-5)


def test_noise_is_shared_by_classes(denoiser, conditions):
    same = take(conditions, np.zeros(3, int))
    table = errors(grid(denoiser), conditions=same)
    np.testing.assert_allclose(table[1:], table[:1].repeat(2, 0), rtol=1e-6)
    assert np.std(table[0]) > 1e-4  # and differs between samples


def test_class_ids_are_conditions_too():
    network = class_denoiser()
    ids = jnp.arange(CLASSES, dtype=jnp.int32)
    table = errors(grid(network), conditions=ids)
    noise = NOISE.draw(IMAGE, jnp.int32(NOISES[2]), Z0.shape)
    t = jnp.int32(TIMESTEPS[2])
    prediction = network.module()(add_noise(SCHEDULE, Z0, noise, t), t, ids[3])
    assert prediction.shape[-1] == 8  # the variance follows, and is not compared
    by_hand = jnp.mean((noise - prediction[..., :4]) ** 2)
    np.testing.assert_allclose(table[3, 2], by_hand, rtol=1e-5)


def test_several_losses_cost_one_forward_pass(denoiser, conditions, expected):
    both = grid(denoiser, losses=("l1", "l2"))
    [[l1, l2]] = evaluate(both, conditions, [(np.arange(CLASSES), {})])
    np.testing.assert_allclose(l2, expected, rtol=1e-5)
    assert np.all(l1**2 < l2)  # (mean |d|)² < mean d²

    def cost(losses):
        return flops(
            lambda *args: block_errors(*args, losses=losses),
            *(denoiser, SCHEDULE, NOISE, conditions),
            blocks([0, 1], TIMESTEPS[:2], [0, 1]),
        )

    assert cost(("l2", "l1", "huber")) < 1.01 * cost(("l2",))


def flops(function, *args):
    return jax.jit(function).lower(*args).cost_analysis()["flops"]


def test_class_independent_work_is_done_once_a_block(denoiser, conditions):
    """FLOPs(B blocks of k classes) = B (shared + k own), shared being worth having."""

    @cache
    def cost(k, n=8):
        return flops(
            lambda *args: block_errors(*args, losses=("l2",)),
            *(denoiser, SCHEDULE, NOISE, conditions),
            blocks(np.arange(k) % CLASSES, np.arange(n), np.arange(n)),
        )

    own = (cost(9) - cost(1)) / 8  # what one more class costs
    shared = cost(1) - own
    # the first resnet of this network comes before the first cross-attention
    first = 8 * 2 * 9 * 8 * 8 * 64 * 2
    assert shared > first
    assert cost(17) == pytest.approx(shared + 17 * own, rel=1e-3)
    assert cost(9, 16) == pytest.approx(2 * cost(9), rel=1e-2)


def test_one_compilation_for_a_tile(denoiser, conditions):
    from diffjax.scoring.grid import tile_errors

    g = grid(denoiser, cells=12)
    errors(g, conditions)
    before = tile_errors.programs
    errors(g, conditions)
    more = {"timesteps": np.arange(40), "noises": np.arange(40)}
    errors(g, conditions, **more)  # more tiles, same shape
    errors(g, conditions, np.array([3, 1, 0, 2, 4]))
    assert tile_errors.programs == before


def test_cells_follow_the_memory():
    mesh = block_mesh()
    sizes = [2**k for k in range(20, 50)]
    cells = [cells_that_fit(size, mesh) for size in sizes]
    assert cells == sorted(cells, reverse=True)
    assert cells[0] == 32 * mesh.size  # plenty of memory
    assert cells[-1] == mesh.size  # never none, even where it does not fit
