"""Which weights are split, when, and how they lie on the devices."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from small import DIT, SCHEDULE, random

from diffjax.errors import DiffjaxError
from diffjax.models.dit import DiTTransformer2DModel
from diffjax.scoring import placement
from diffjax.scoring.grid import Blocks, tile_errors
from diffjax.scoring.noise import SeededNoise
from diffjax.scoring.placement import (
    BLOCKS,
    block_mesh,
    check_same,
    least,
    place_weights,
    replicate,
    shards_weights,
    weight_specs,
)


@pytest.fixture(scope="module")
def mesh():
    return block_mesh(jax.local_devices()[:2])


def spec(path, shape, mesh, *, sharded=True):
    """Of one weight, at a path as nnx has them."""
    tree = np.zeros(shape, np.float32)
    for key in reversed([*path.split("/"), "value"]):
        tree = {key: tree}
    [found] = jax.tree.leaves(weight_specs(tree, mesh, sharded=sharded))
    return found


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("down/0/conv1/kernel", (3, 3, 64, 32), (None, None, None, BLOCKS)),
        ("to_q/kernel", (64, 128), (None, BLOCKS)),
        ("to_q/kernel", (4096, 3), (BLOCKS,)),  # the outputs are odd
        ("to_q/kernel", (4097, 3), ()),  # so are the inputs
        ("to_q/kernel", (8, 8), ()),  # too small
        ("class_embedder/embedding", (1001, 16), (None, BLOCKS)),
        ("norm/scale", (8192,), ()),
        ("to_q/bias", (8192,), ()),
    ],
)
def test_the_rules(mesh, path, shape, expected):
    assert spec(path, shape, mesh) == PartitionSpec(*expected)
    assert spec(path, shape, mesh, sharded=False) == PartitionSpec()


def test_a_device_holds_its_part(mesh):
    kernel = np.arange(2.0**14, dtype=np.float32).reshape(128, 128)
    network = {"to_q": {"kernel": {"value": kernel}, "bias": {"value": kernel[0]}}}
    for sharded in (False, True):
        placed = place_weights(network, mesh, sharded=sharded)["to_q"]
        np.testing.assert_array_equal(placed["kernel"]["value"], kernel)
        np.testing.assert_array_equal(placed["bias"]["value"], kernel[0])
        part = placed["kernel"]["value"].addressable_shards[1].data
        assert part.shape == ((128, 64) if sharded else (128, 128))


def test_when_weights_are_split(mesh, monkeypatch):
    network = {"kernel": np.zeros((1000, 250), np.float32)}  # a million bytes
    one = block_mesh(jax.local_devices()[:1])

    def choices(mesh):
        return [shards_weights(c, network, mesh) for c in ("auto", "always", "never")]

    monkeypatch.setattr(placement, "_memory", lambda device: 2_600_000)
    assert choices(mesh) == [False, True, False]
    monkeypatch.setattr(placement, "_memory", lambda device: 2_400_000)
    assert choices(mesh) == [True, True, False]
    assert choices(one) == [False] * 3  # there is nothing to split among


def test_processes_agree_on_what_they_run(mesh, monkeypatch):
    assert least(7, mesh) == 7
    check_same(7, mesh, "image")
    monkeypatch.setattr(placement, "_of_every_process", lambda *_: [9, 9, 7])
    assert least(9, mesh) == 7
    with pytest.raises(DiffjaxError, match="the same image; process 2 has others"):
        check_same(9, mesh, "image")


MEMORY = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import test_placement
print(*test_placement.memory_of_a_tile())
"""


def memory_of_a_tile():
    """Bytes of arguments and intermediate values on a device, and of all weights."""
    mesh = block_mesh()
    config = replace(DIT, num_attention_heads=8, num_layers=6)  # 64 wide
    network = random(DiTTransformer2DModel, config)
    place = np.zeros(mesh.size, np.int32)
    blocks = Blocks(
        keys=place.astype(np.uint32),
        z0=np.zeros((mesh.size, 8, 8, 4), np.float32),
        timesteps=place,
        noises=place,
        classes=place[:, None],
    )
    lowered = tile_errors.lower(
        place_weights(network, mesh, sharded=True),
        *replicate((SCHEDULE, SeededNoise.of(0), jnp.arange(2)), mesh),
        blocks,
        losses=("l2",),
        mesh=mesh,
        sharded=True,
    )
    memory = lowered.compile().memory_analysis()
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(network))
    return memory.argument_size_in_bytes, memory.temp_size_in_bytes, n_bytes


@pytest.mark.slow
def test_a_tile_gathers_weights_as_it_comes_to_them():
    """Not all at once: then they would take as much memory as copies do."""
    # by default XLA orders programs for CPUs by speed alone
    flags = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        cwd=Path(__file__).parent,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=True,
    )
    arguments, temporary, weights = map(int, done.stdout.split())
    assert arguments < 0.55 * weights
    assert temporary < 0.25 * weights


def test_a_system_that_does_not_tell_its_memory_is_told_of(monkeypatch):
    monkeypatch.delattr("os.sysconf")  # as on Windows
    with pytest.raises(DiffjaxError, match=r"Linux and macOS.*WSL"):
        placement._memory(jax.devices()[0])


def test_other_programs_memory_is_not_free(tmp_path, monkeypatch):
    table = tmp_path / "meminfo"
    table.write_text(
        "MemTotal:  9000 kB\nMemAvailable:    3000 kB\nHugePages_Free: 0\n"
    )
    assert placement.available_bytes(table) == 3000 * 1024
    unknown = placement.available_bytes(tmp_path / "not Linux")
    table.write_text("MemTotal:  9000 kB\n")
    assert placement.available_bytes(table) == unknown > 2**60
    [device, *_] = jax.local_devices()
    if device.platform == "cpu":
        monkeypatch.setattr(placement, "available_bytes", lambda: 2**30)
        assert placement.free_bytes(device) == 2**30 // len(jax.local_devices())
        monkeypatch.setattr(placement, "available_bytes", lambda: unknown)
        assert 2**30 < placement.free_bytes(device) < unknown
