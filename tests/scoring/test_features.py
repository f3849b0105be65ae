"""Features of images: of each alone, seeded, averaged by area."""

import jax.numpy as jnp
import numpy as np
import pytest
import small
import torch

from diffjax.models.diffusion import Network
from diffjax.models.unet import UNet2DConditionModel
from diffjax.scoring.features import Images, averaged, features
from diffjax.scoring.noise import SeededNoise

LAYERS = ("mid_block", "up_blocks.0")


@pytest.fixture(scope="module")
def denoiser() -> Network:
    return small.random(UNet2DConditionModel, small.ONE_LEVEL)


def images(keys):
    z0 = np.random.default_rng(0).normal(size=(3, 8, 8, 4)).astype(np.float32)
    return Images(keys=np.array(keys, np.uint32), z0=z0, told={})


def of(denoiser, images, *, noise=None, t=100):
    condition = small.conditioner().encode([""])[0]
    one = condition._replace(states=condition.states[0])
    noise = noise or SeededNoise.of(0)
    given = (denoiser, small.SCHEDULE, noise, one, images, np.int32(t))
    return [np.asarray(x) for x in features(*given, layers=LAYERS, most=4)]


def test_an_images_features_depend_on_it_alone(denoiser):
    together = of(denoiser, images([7, 8, 9]))
    assert [x.shape for x in together] == [(3, 4, 4, 8)] * 2
    other = images([5, 8, 6])
    other.z0[[0, 2]] += 1
    for x, y in zip(together, of(denoiser, other), strict=True):
        np.testing.assert_allclose(x[1], y[1], rtol=1e-5, atol=1e-6)
        assert not np.allclose(x[0], y[0], atol=1e-2)


def test_noise_is_the_images_own_and_the_seeds(denoiser):
    same = images([7, 7, 8])
    same.z0[:] = same.z0[0]
    first, second, third = of(denoiser, same)[0]
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
    assert not np.allclose(first, third, atol=1e-2)
    shared = of(denoiser, same, noise=SeededNoise.of(0, shared=True))[0]
    np.testing.assert_allclose(shared[0], shared[2], rtol=1e-5, atol=1e-6)
    others = (
        of(denoiser, same, noise=SeededNoise.of(1))[0],
        of(denoiser, same, t=900)[0],
    )
    assert not any(np.allclose(first, x[0], atol=1e-2) for x in others)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 3), (5, 4)])
def test_maps_are_averaged_as_torch_does_where_areas_are_even(height, width):
    x = np.random.default_rng(0).normal(size=(height, width, 2)).astype(np.float32)
    found = np.asarray(averaged(jnp.asarray(x), 4))
    assert found.shape == (min(height, 4), min(width, 4), 2)
    if height % 4 == 0:
        theirs = torch.nn.functional.adaptive_avg_pool2d(
            torch.from_numpy(x.transpose(2, 0, 1)), found.shape[:2]
        )
        np.testing.assert_allclose(found, theirs.numpy().transpose(1, 2, 0), atol=1e-6)
    np.testing.assert_allclose(found.mean((0, 1)), x.mean((0, 1)), atol=1e-6)
