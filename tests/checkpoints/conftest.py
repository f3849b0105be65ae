"""Small checkpoints as folders, whole and as copies to be changed."""

import shutil

import pipelines
import pytest
from loaded import outputs

from diffjax.checkpoints.loading import load_model


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    return folder, pipelines.stable_diffusion(folder)


@pytest.fixture
def sd(stable_diffusion, tmp_path):
    """A copy of a Stable Diffusion's folder, to be changed."""
    return shutil.copytree(stable_diffusion[0], tmp_path / "sd")


@pytest.fixture(scope="module")
def dit_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dit")
    pipelines.dit_pipeline(folder)
    return folder


@pytest.fixture
def dit(dit_folder, tmp_path):
    return shutil.copytree(dit_folder, tmp_path / "dit")


@pytest.fixture(scope="module")
def expected(stable_diffusion):
    return outputs(load_model(stable_diffusion[0]))
