import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from diffjax.errors import DiffjaxError
from diffjax.scoring.noise import SeededNoise, read_noise

SHAPE = (4, 6, 3)


def test_seeded_noise_is_a_function_of_seed_image_and_index():
    draws = {
        (seed, image, k): np.asarray(SeededNoise.of(seed).draw(image, k, SHAPE))
        for seed in (0, 1)
        for image in (0, 2**32 - 1)
        for k in (0, 1, 1000)
    }
    for (seed, image, k), noise in draws.items():
        draw = jax.jit(lambda n, image, k: n.draw(image, k, SHAPE))
        again = draw(SeededNoise.of(seed), np.uint32(image), k)
        np.testing.assert_allclose(noise, again, atol=1e-6)
    values = list(draws.values())
    for i, a in enumerate(values):
        for b in values[:i]:
            assert np.abs(a - b).max() > 0.1


def test_shared_noise_leaves_the_image_out():
    shared = SeededNoise.of(3, shared=True)
    np.testing.assert_array_equal(shared.draw(5, 1, SHAPE), shared.draw(9, 1, SHAPE))
    assert np.abs(shared.draw(5, 1, SHAPE) - shared.draw(5, 2, SHAPE)).max() > 0.1


def test_seeded_noise_is_standard_normal():
    draw = jax.vmap(lambda k: SeededNoise.of(0).draw(0, k, SHAPE))
    x = np.asarray(draw(jnp.arange(1000)))
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02


@pytest.fixture
def table():
    return np.random.default_rng(0).standard_normal((5, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("torch_layout", [False, True])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_noise_files(tmp_path, table, suffix, torch_layout):
    path = tmp_path / f"noise{suffix}"
    stored = (
        np.ascontiguousarray(table.transpose(0, 3, 1, 2)) if torch_layout else table
    )
    if suffix == ".npy":
        np.save(path, stored)
    elif suffix == ".npz":
        np.savez(path, noise=stored)
    else:
        save_file({"noise": stored}, path)
    noise = read_noise(path, SHAPE)
    for image in (0, 7):
        drawn = noise.draw(image, jnp.int32(3), SHAPE)
        np.testing.assert_array_equal(drawn, table[3])
    noise.check(np.array([0, 4]))
    with pytest.raises(DiffjaxError, match=r"holds 5 noises.*index 5"):
        noise.check(np.array([5]))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("absent.npy", lambda p: None, "There is no noise file"),
        ("noise.pt", lambda p: p.write_bytes(b"x"), "npy, .npz or .safetensors"),
        ("broken.npy", lambda p: p.write_bytes(b"\x93NUMPY junk"), "cannot be read"),
        ("broken.safetensors", lambda p: p.write_bytes(b"junk"), "not a readable"),
        (
            "pickled.npy",
            lambda p: np.save(p, np.array([{}]), allow_pickle=True),
            "Python objects",
        ),
        ("shape.npy", lambda p: np.save(p, np.ones((5, 4, 4, 3))), "need"),
        ("nan.npy", lambda p: np.save(p, np.full((5, *SHAPE), np.nan)), "not finite"),
        ("text.npy", lambda p: np.save(p, np.full((5, *SHAPE), "a")), "of type"),
        ("two.npz", lambda p: np.savez(p, a=np.ones(3), b=np.ones(3)), "2 arrays"),
    ],
)
def test_bad_noise_files(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(DiffjaxError, match=message) as caught:
        read_noise(path, SHAPE)
    assert name in str(caught.value)
