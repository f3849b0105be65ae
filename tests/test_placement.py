"""Which weights are split, when, and how they lie on the devices."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from diffjax.errors import DiffjaxError
from diffjax.scoring import placement
from diffjax.scoring.placement import (
    BLOCKS,
    block_mesh,
    check_same,
    least,
    place_weights,
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
