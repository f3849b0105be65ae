"""Results do not depend on JAX's process-wide settings, nor on other ambient things."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import several
from small import SCHEDULE, WIDTH, jax_random, one_level_denoiser

from diffjax.cli.demo import examples
from diffjax.models.unet import TextCondition
from diffjax.scoring.grid import Blocks, Grid, tile_errors
from diffjax.scoring.noise import SeededNoise, normal, seed_key
from diffjax.scoring.placement import block_mesh, replicate
from diffjax.tracing import eval_shape, jit

[SHIP] = [str(path) for path, truth in examples().items() if truth == "ship"]
# Classifies with and without gradients, explains, draws; prints every number.
PROGRAM = f"""
import json
import numpy as np
from diffjax import DiffusionClassifier, Exhaustive, explain
from diffjax.scoring.noise import SeededNoise

classifier = DiffusionClassifier.from_pretrained(
    "tiny", strategy=Exhaustive(n_samples=3), cells=8, shortlist="k=2:n_samples=2"
)
record = classifier.classify({SHIP!r}, ["ship", "frog", "truck"])
maps = explain(classifier, {SHIP!r}, "ship", "frog", n_samples=2).maps
draw = SeededNoise.of(7).draw(3_000_000_000, 5, (2, 4))
print(json.dumps({{
    "label": record.label,
    "errors": np.nan_to_num(record.table.errors).tolist(),
    "maps": np.asarray(maps).ravel().tolist(),
    "noise": np.asarray(draw).ravel().tolist(),
}}))
"""
# What JAX has drawn by default since version 0.5, and what all saved runs were made of:
# normal(fold_in(fold_in(key(seed), image), k), (2, 4)) of (seed, image, k)
GOLDEN = {
    (7, 3_000_000_000, 5): [
        *(-0.06740945, -0.03570405, -0.64431667, -1.09305251),
        *(0.08950767, 0.33115450, 1.66497779, -0.51383746),
    ],
    (0, 0, 0): [
        *(-0.57478017, 0.79983664, -0.25960687, 1.42987299),
        *(-0.52380246, -1.74501348, -0.86834651, 0.20995171),
    ],
}

NUMBERS = {  # settings that change what a seed draws, or how numbers are computed
    "x64": {"JAX_ENABLE_X64": "1"},
    "partitionable": {"JAX_THREEFRY_PARTITIONABLE": "0"},
    "generator": {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
    "unsafe generator": {"JAX_DEFAULT_PRNG_IMPL": "unsafe_rbg"},
    "offset": {"JAX_RANDOM_SEED_OFFSET": "3"},
    "precision": {"JAX_DEFAULT_MATMUL_PRECISION": "BF16_BF16_F32"},
    "dtypes": {"JAX_NUMPY_DTYPE_PROMOTION": "strict"},
    "ranks": {"JAX_NUMPY_RANK_PROMOTION": "raise"},
    "transfers": {"JAX_TRANSFER_GUARD": "disallow"},
}
WATCHING = {  # settings that make JAX look closer
    "nans": {"JAX_DEBUG_NANS": "1"},
    "infs": {"JAX_DEBUG_INFS": "1"},
    "keys": {"JAX_DEBUG_KEY_REUSE": "1", "JAX_ENABLE_CUSTOM_PRNG": "1"},
    "old keys": {"JAX_LEGACY_PRNG_KEY": "error"},
    "64 bits": {"JAX_EXPLICIT_X64_DTYPES": "error"},
}
SLOW = {
    "leaks": {"JAX_CHECK_TRACER_LEAKS": "1"},
    "checks": {"JAX_ENABLE_CHECKS": "1"},
}
AROUND = {  # what else a process has of its own
    "hashes": {"PYTHONHASHSEED": "12345"},
    "threads": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    "locale": {"LC_ALL": "C", "LANG": "de_DE.UTF-8", "PYTHONUTF8": "0"},
    "zone": {"TZ": "Pacific/Auckland"},
    "softmax": {"JAX_SOFTMAX_CUSTOM_JVP": "1"},
    "gradients": {"JAX_USE_DIRECT_LINEARIZE": "0"},
}


def merged(*groups):
    return {
        key: v for group in groups for one in group.values() for key, v in one.items()
    }


def run(settings):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def plain():
    return run({})


def assert_same(found, plain):
    assert found["label"] == plain["label"] == "ship"
    for name in ("errors", "maps"):
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-6, atol=1e-9)
    [golden, *_] = GOLDEN.values()
    np.testing.assert_allclose(found["noise"], golden, atol=1e-6)


@pytest.mark.slow
def test_no_setting_changes_an_answer(plain):
    assert_same(plain, plain)
    assert_same(run(merged(NUMBERS)), plain)
    assert_same(run(merged(WATCHING, AROUND)), plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE := NUMBERS | WATCHING | SLOW | AROUND)
def test_no_setting_alone_changes_an_answer(plain, name):
    assert_same(run(ALONE[name]), plain)


# the same, by the program that calls this package: (context manager, value)
CONTEXTS = [
    pytest.param(jax.enable_x64, True, id="x64"),
    pytest.param(jax.threefry_partitionable, False, id="partitionable"),
    pytest.param(jax.default_prng_impl, "rbg", id="generator"),
    pytest.param(jax.default_matmul_precision, "BF16_BF16_F32", id="precision"),
    pytest.param(jax.numpy_dtype_promotion, "strict", id="dtypes"),
    pytest.param(jax.numpy_rank_promotion, "raise", id="ranks"),
    pytest.param(jax.transfer_guard, "disallow", id="transfers"),
]


@pytest.mark.parametrize("seed", GOLDEN)
@pytest.mark.parametrize(("setting", "value"), CONTEXTS)
def test_noise_is_a_fact(seed, setting, value):
    number, image, k = seed

    def draw(noise, image, k):
        return noise.draw(image, k, (2, 4))

    with setting(value):
        noise = SeededNoise.of(number)
        alone = noise.draw(image, k, (2, 4))
        mapped = jit(jax.vmap(draw, (None, 0, None)))(
            noise, np.array([image, 1], np.uint32), np.int32(k)
        )
    assert alone.dtype == mapped.dtype == jnp.float32
    np.testing.assert_allclose(alone.ravel(), GOLDEN[seed], atol=1e-6)
    np.testing.assert_allclose(mapped[0].ravel(), GOLDEN[seed], atol=1e-6)


def test_only_32_bits_of_a_seed_count():
    for seed in (0, 1, 2**31, 2**32 - 1, 2**32 + 5, np.uint32(2**32 - 1), np.int64(3)):
        data = jax.random.key_data(jax.random.key(int(seed) % 2**32))
        np.testing.assert_array_equal(jax.random.key_data(seed_key(seed)), data)


@pytest.fixture(scope="module", params=["one leaf", "several leaves"])
def tile(request):
    """A grid on both devices, and a tile of it: (grid, conditions, blocks)."""
    mesh = block_mesh()
    denoiser, conditions = one_level_denoiser(), TextCondition(jax_random(3, 6, WIDTH))
    if request.param == "several leaves":  # floats, integers and booleans
        denoiser, conditions = several.denoiser(), several.conditions(3)
    grid = Grid(
        denoiser=replicate(denoiser, mesh),
        schedule=replicate(SCHEDULE, mesh),
        noise=replicate(SeededNoise.of(3), mesh),
        losses=("l2",),
        cells=8,
        mesh=mesh,
    )
    blocks = Blocks(
        keys=np.array([3_000_000_000, 1], np.uint32),
        z0=np.asarray(jax_random(2, 8, 8, 4)),
        timesteps=np.array([100, 700], np.int32),
        noises=np.array([0, 4], np.int32),
        classes=np.array([[0, 1], [1, 2]], np.int32),
    )
    return grid, replicate(conditions, mesh), blocks


@pytest.mark.parametrize(("setting", "value"), CONTEXTS)
def test_a_tile_is_the_same_program_under_any_setting(tile, setting, value):
    grid, conditions, blocks = tile
    usual = grid.errors(conditions, blocks)
    before = tile_errors.programs
    with setting(value):
        within = grid.errors(conditions, blocks)
    np.testing.assert_array_equal(within, usual)
    assert tile_errors.programs == before


def test_settings_of_the_caller_stay():
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        normal(seed_key(0), (2,))
        assert jnp.zeros(2, float).dtype == jnp.float64
        with pytest.raises(ValueError, match="broadcast"):
            jnp.zeros((2, 2)) + jnp.zeros(2)
        assert eval_shape(lambda x: x + jnp.zeros(2), jnp.zeros((2, 2), "f4"))


def test_errors_leave_the_settings_as_they_were():
    def fail(x):
        raise ValueError("no")

    with jax.numpy_rank_promotion("raise"):
        with pytest.raises(ValueError, match="no"):
            jit(fail)(1.0)
        assert jax.config.jax_numpy_rank_promotion == "raise"
