"""Stable Diffusion 2 at its full size, in float16 files with random weights."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from diffjax.checkpoints.networks import load_network
from diffjax.models.unet import TextCondition

SCRIPTS = Path(__file__).parents[2] / "scripts"
NEEDED = 12e9  # bytes of memory
BEYOND_WEIGHTS = 2e9

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        jax.default_backend() != "cpu" or not Path("/proc/self/clear_refs").exists(),
        reason="it measures a CPU's memory, on Linux",
    ),
]


def free_memory():
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if line.startswith("MemAvailable")]
    return 1024 * int(line.split()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if free_memory() < NEEDED:
        pytest.skip(f"it needs {NEEDED / 1e9:.0f} GB of memory")
    out = tmp_path_factory.mktemp("full") / "sd-2-base"
    script = SCRIPTS / "make_random_pipeline.py"
    subprocess.run([sys.executable, script, "sd-2-base", out], check=True)
    return out


def test_memory(folder):
    """Weights once in float32, and little besides, from the files to the decision."""
    script = SCRIPTS / "measure_classification.py"
    run = subprocess.run(
        [sys.executable, script, folder, "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(run.stdout)
    peaks = {row["stage"]: row["peak"] for row in result["stages"]}
    assert result["weights"] > 5.1e9
    assert max(peaks.values()) < result["weights"] + BEYOND_WEIGHTS, peaks
    assert np.isfinite(result["errors"]).all()


def test_agreement_with_torch(folder):
    import torch
    from diffusers import UNet2DConditionModel

    rng = np.random.default_rng(0)
    latent = rng.standard_normal((64, 64, 4), np.float32)
    states = rng.standard_normal((77, 1024), np.float32)
    unet = UNet2DConditionModel.from_pretrained(
        folder / "unet", torch_dtype=torch.float32
    )
    with torch.inference_mode():
        expected = unet(
            torch.from_numpy(latent).permute(2, 0, 1)[None],
            torch.tensor([500]),
            encoder_hidden_states=torch.from_numpy(states)[None],
        ).sample[0]
    expected = expected.permute(1, 2, 0).numpy().copy()
    del unet
    gc.collect()
    _, network = load_network(folder / "unet", "unet")
    found = jax.jit(lambda network, *x: network.module()(*x))(
        network, latent, np.int32(500), TextCondition(states)
    )
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
