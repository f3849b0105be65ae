"""Small models in folders, and a compile cache that is not the tests' own."""

import numpy as np
import pipelines
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Stable Diffusion and a DiT with random weights, and an image."""
    root = tmp_path_factory.mktemp("models")
    pipelines.stable_diffusion(root / "sd")
    pipelines.dit_pipeline(root / "dit")
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(noise).save(root / "noise.png")
    return root


@pytest.fixture
def no_compile_cache(monkeypatch, tmp_path):
    """JAX is already imported here, and its folder is not ours to set."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "jax"))
