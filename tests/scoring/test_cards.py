"""What the compiler for NVIDIA's GPUs is told of them, and refusals without it.

What it makes of real networks is in ``test_gpu_compiler.py``.
"""

import importlib.util
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

from diffjax.cli.commands import group
from diffjax.errors import DiffjaxError
from diffjax.models.attention import Target
from diffjax.scoring import compiling
from diffjax.scoring.accelerators import ACCELERATORS
from diffjax.scoring.cards import CARDS
from diffjax.scoring.compiling import KERNEL, topology
from diffjax.scoring.traffic import bytes_accessed

HAS_PLUGIN = importlib.util.find_spec("jax_cuda12_plugin") is not None

# Fields of stream_executor's GpuDeviceInfoProto that the compiler's decisions rest on.
FIELDS = {
    "threads_per_block_limit",
    "threads_per_warp",
    "shared_memory_per_block",
    "shared_memory_per_block_optin",
    "shared_memory_per_core",
    "threads_per_core_limit",
    "core_count",
    "fpus_per_core",
    "registers_per_core_limit",
    "registers_per_block_limit",
    "l2_cache_size",
    "clock_rate_ghz",
    "device_memory_size",
    "memory_bandwidth",
    "block_dim_limit_x",
    "block_dim_limit_y",
    "block_dim_limit_z",
    "thread_dim_limit_x",
    "thread_dim_limit_y",
    "thread_dim_limit_z",
}
# What the cards say of themselves (openxla/xla, backends/gpu/target_config/specs).
TOLD = {
    "a100": {
        "core_count": 108,
        "fpus_per_core": 64,
        "shared_memory_per_core": 167936,
        "shared_memory_per_block_optin": 166912,
        "l2_cache_size": 41943040,
        "device_memory_size": 85100068864,
        "memory_bandwidth": 2039040000000,
        "major": 8,
    },
    "h100": {
        "core_count": 132,
        "fpus_per_core": 128,
        "shared_memory_per_core": 233472,
        "shared_memory_per_block_optin": 232448,
        "l2_cache_size": 52428800,
        "device_memory_size": 84942979072,
        "memory_bandwidth": 3352320000000,
        "major": 9,
    },
    "h200": {
        "core_count": 132,
        "device_memory_size": 151397597184,
        "memory_bandwidth": 4800000000000,
        "major": 9,
    },
}


@pytest.mark.parametrize("name", CARDS)
def test_descriptions_say_what_the_cards_say(name):
    text = CARDS[name].description
    fields = re.findall(r"(\w+): ([\d.]+)", text)
    numbers = dict(fields)
    assert len(fields) == len(numbers) + 2  # major and minor, of two things
    assert set(numbers) == FIELDS | {"major", "minor"}
    assert text.count("{") == text.count("}") == 3
    capability = re.search(r"major: (\d+) minor: 0 feature_extension: (\w+)", text)
    wanted = dict(TOLD[name])
    assert int(capability[1]) == wanted.pop("major")
    # instructions that only Hopper has
    assert (capability[2] == "ACCELERATED_FEATURES") == (capability[1] == "9")
    assert {key: int(numbers[key]) for key in wanted} == wanted


@pytest.mark.parametrize("name", CARDS)
def test_published_peaks_follow_from_the_units(name):
    card, known = CARDS[name], ACCELERATORS[name]
    units = card.processors * card.lanes * 2 * card.clock * 1e9
    assert known.flops["float32"] == pytest.approx(units, rel=0.01)
    assert known.bandwidth == card.bandwidth
    assert known.memory < 0.76 * card.memory
    assert known.compute_capability == card.compute_capability


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("h100:4", "along 3 axes: 1x1x8"),
        ("h100:1x4", "along 3 axes: 1x1x8"),
        ("h10:1x1x4", "h100"),
        ("A100:1x1x4", "a100"),
        ("h100", "h100:1x1x8"),
    ],
)
def test_names_that_are_none(name, told):
    with pytest.raises(DiffjaxError, match=told):
        topology(name)


@pytest.mark.skipif(HAS_PLUGIN, reason="JAX's plugin for CUDA is installed")
def test_without_the_plugin_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))  # which the command changes
    asked = ["bench", "--random", "tiny", "--compile-for", "h100:1x1x4"]
    result = CliRunner().invoke(group, asked)
    assert result.exit_code == 2
    assert "h100:1x1x4 cannot be compiled for" in result.stderr
    assert 'pip install "jax[cuda12]"' in result.stderr.replace("\n", " ")


def test_the_compiler_is_handed_the_card(monkeypatch):
    asked = {}

    def describe(**arguments):
        asked.update(arguments)
        raise jax.errors.JaxRuntimeError("FAILED_PRECONDITION: no such card\nat …")

    monkeypatch.setattr(compiling.topologies, "get_topology_desc", describe)
    with pytest.raises(DiffjaxError, match=r"no such card\. NVIDIA's"):
        topology("h200:1x2x8")
    assert asked["topology"] == "1x2x8"
    assert asked["target_config"] == CARDS["h200"].description


def test_jax_is_told_how_new_the_card_is():
    """cuDNN's attention has heads of 160 on Hopper, and not before."""
    wide = jnp.zeros((1, 16, 2, 160), jnp.bfloat16)

    def kernels(target):
        def f(x):
            return jax.nn.dot_product_attention(x, x, x, implementation="cudnn")

        with compiling.answering_for(target):
            lowered = jax.jit(f).trace(wide).lower(lowering_platforms=("cuda",))
        return lowered.as_text().count("@__cudnn$fmha")

    assert kernels(Target("cuda", (9, 0))) == 1
    with pytest.raises(NotImplementedError, match="160"):
        kernels(Target("cuda", (8, 0)))
    assert kernels(Target("cuda", (9, 0))) == 1


TEXT = """HloModule jit_f

%fused (p: bf16[4,8]) -> bf16[4,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  ROOT %n = bf16[4,8]{1,0} negate(%p)
}

ENTRY %main (x: bf16[4,8], w: f32[8]) -> f32[4] {
  %x = bf16[4,8]{1,0} parameter(0), metadata={op_name="f(x)[1,2]"}
  %w = f32[8]{0} parameter(1)
  %fusion.1 = bf16[4,8]{1,0} fusion(%x), kind=kLoop, calls=%fused
  %view = bf16[32]{0} bitcast(%fusion.1)
  %call.2 = (f32[4]{0}, s8[4096]{0}) custom-call(%view, %w, %w), \
custom_call_target="__cublas$lt$matmul"
  ROOT %get-tuple-element.3 = f32[4]{0} get-tuple-element(%call.2), index=0
}
"""


def test_bytes_are_counted_once_for_each_operand():
    fusion = 64 + 64
    call = 64 + 32 + 16  # w once; the workspace is the library's own
    assert bytes_accessed(TEXT) == fusion + call
    assert KERNEL.findall(TEXT) == ["cublas$lt$matmul"]


def test_bytes_are_those_that_xla_counts():
    """Where XLA does count, on a CPU."""

    def layers(x, weights):
        for weight in weights:
            x = x + jnp.tanh(x @ weight).mean(axis=-1, keepdims=True)
        return x

    shapes = jnp.zeros((64, 128)), [jnp.zeros((128, 128))] * 3
    compiled = jax.jit(layers).lower(*shapes).compile()
    counted = bytes_accessed(compiled.as_text())
    np.testing.assert_allclose(
        counted, compiled.cost_analysis()["bytes accessed"], rtol=0.15
    )
