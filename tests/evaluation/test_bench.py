"""`diffjax bench`, with networks and matrices small enough to compile in seconds."""

import json
from dataclasses import asdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from click.testing import CliRunner

from diffjax.checkpoints import untrained
from diffjax.checkpoints.networks import empty_network
from diffjax.cli.bench import UNTRAINED, peak_text
from diffjax.cli.commands import group
from diffjax.errors import DiffjaxError
from diffjax.evaluation import bench
from diffjax.models.unet import TextCondition, UNet2DConditionModel
from diffjax.scoring import speed
from diffjax.scoring.grid import Grid

KEYS = Path(__file__).parents[1] / "goldens" / "keys"
DEVICES = jax.local_device_count()
MODEL = small.text_model(denoiser=small.one_level_denoiser())


@pytest.fixture
def tiny(monkeypatch):
    """Every model is one small network; peaks are measured on small arrays."""
    parts = []
    monkeypatch.setattr(
        bench, "load_model", lambda name, dtype, **given: parts.append(given) or MODEL
    )
    monkeypatch.setitem(speed.SIDE, "cpu", 16)
    monkeypatch.setitem(speed.COPIED, "cpu", 2**12)
    return parts


def test_every_combination_is_timed(tiny):
    run = bench.Bench(model="any", random=False, dtype="float32")
    timings = list(run.timings((8, 16), (2 * DEVICES,), (3,)))
    shapes = [(t.resolution, t.blocks, t.classes) for t in timings]
    assert shapes == [(px, 2 * DEVICES, 3) for px in (8, 16)]
    for t in timings:
        assert np.isclose(t.evaluations_per_second * t.seconds, 3 * t.blocks)
        assert np.isclose(t.flops_per_second * t.seconds, t.flops)
        assert np.isclose(t.share_of_peak * run.peak.flops, t.flops_per_second)
        assert np.isclose(t.share_of_roofline * t.roofline, t.flops_per_second)
        assert t.roofline <= run.peak.flops
    assert timings[1].flops > 3 * timings[0].flops  # four times the cells of latents


def test_what_does_not_fit_is_said(tiny, monkeypatch):
    run = bench.Bench(model="any", random=False, dtype="float32")
    with pytest.raises(DiffjaxError, match="multiple of 2"):
        next(run.timings((15,)))
    monkeypatch.setattr(Grid, "devices", 2)
    with pytest.raises(DiffjaxError, match="3 blocks cannot be split among 2"):
        next(run.timings((16,), (3,)))


def test_memory_that_does_not_hold_a_tile_leaves_a_gap(tiny, monkeypatch):
    def full(*arguments):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(bench, "tile_cost", full)
    run = bench.Bench(model="any", random=False, dtype="float32")
    (timing,) = run.timings((8,), (DEVICES,))
    assert timing.seconds is None and timing.evaluations_per_second is None
    report = bench.report("any", run.device, timings=[asdict(timing)])
    assert json.loads(json.dumps(report))["timings"][0]["flops"] is None


def test_the_command_tells_all_in_json_and_as_a_table(tiny):
    asked = ["bench", "--quiet", "--blocks", str(DEVICES), "--classes", "2"]
    result = CliRunner().invoke(group, [*asked, "--json"])
    report = json.loads(result.stdout)
    assert report["model"] == "small"
    assert set(report) == {"model", "environment", "created", "peaks", "timings"}
    assert [peak["dtype"] for peak in report["peaks"]] == ["float32"]
    (timing,) = report["timings"]
    assert (timing["resolution"], timing["classes"]) == (16, 2)
    assert tiny == [{}]
    parts = ["--variant", "fp16", "--offline", "--unet", "./mine"]
    result = CliRunner().invoke(group, [*asked, *parts])
    assert tiny[1:] == [{"variant": "fp16", "local_files_only": True, "unet": "./mine"}]
    assert result.exit_code == 0 and "FLOP/B" in result.stdout
    assert "roofline float32" in result.stdout


def test_random_weights_have_no_parts():
    asked = ["bench", "--random", "tiny", "--unet", "./mine"]
    result = CliRunner().invoke(group, asked)
    assert result.exit_code == 2 and "goes without unet" in result.stderr


def test_the_roofline_bends_where_memory_no_longer_limits():
    peak = speed.Peak(flops=100.0, bandwidth=10.0)
    assert [peak.roofline(i) for i in (1.0, 10.0, 50.0)] == [10, 100, 100]
    text = peak_text({"dtype": "float32", "flops": 100.0, "bandwidth": 10.0})
    assert "below 10 FLOP/byte" in text


def test_class_ids_and_text_states_are_conditions():
    text, ids = small.text_model(), small.class_model()
    [states] = bench.subject_of(text).conditions
    assert states.shape == (1, small.TOKENS, small.WIDTH)
    assert bench.subject_of(ids).conditions.dtype == np.int32
    assert bench.subject_of(ids).latent_shape(16) == (8, 8, 4)


def test_published_sizes_are_complete():
    assert set(UNTRAINED) == set(untrained.UNTRAINED)
    sizes = {"sd-1.5": "sd15-unet", "sd-2-base": "sd2-unet", "dit-256": "dit-xl-2-256"}
    for name, key in sizes.items():
        _, path = untrained.UNTRAINED[name]
        assert json.loads(path.read_text()) == json.loads(
            (KEYS / f"{key}.json").read_text()
        )
    with pytest.raises(DiffjaxError, match="sd-2-base"):
        untrained.untrained("sd-9")


def test_random_weights_keep_activations_in_size():
    network = untrained.random_network(small.UNET)
    _, abstract = empty_network(small.UNET)
    shapes = [leaf.shape for leaf in jax.tree.leaves(abstract)]
    assert [leaf.shape for leaf in jax.tree.leaves(network.state)] == shapes
    assert isinstance(network.module(), UNet2DConditionModel)
    states = TextCondition(small.jax_random(small.TOKENS, small.WIDTH))
    call = jax.jit(lambda network, *rest: network.module()(*rest))
    out = call(network, small.jax_random(8, 8, 4), jnp.int32(3), states)
    assert 0.01 < float(np.std(np.asarray(out))) < 100
