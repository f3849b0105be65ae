import dataclasses
import shutil

import jax
import numpy as np
import pytest
from small import text_model

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.errors import DiffjaxError
from diffjax.evaluation.latents import BATCH, Latents
from diffjax.files import PARTIAL
from diffjax.models.diffusion import DiffusionModel
from diffjax.models.network import Network


@pytest.fixture(scope="module")
def classifier():
    return DiffusionClassifier(text_model(), Settings(cells=2))


@pytest.fixture
def encoded(monkeypatch):
    """The number of images in each call of the autoencoder."""
    calls = []
    latents = DiffusionModel.latents

    def counting(model, pixels):
        calls.append(len(pixels))
        return latents(model, pixels)

    monkeypatch.setattr(DiffusionModel, "latents", counting)
    return calls


def pictures(classifier, n, **settings):
    chosen = dataclasses.replace(classifier.settings, **settings)
    other = DiffusionClassifier(classifier.model, chosen)
    shape = (n, 20, 18, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return [other.pixels(image) for image in images]


def test_a_batch_is_what_its_images_are_alone(classifier, encoded):
    pixels = pictures(classifier, 3)
    together = Latents(classifier, None).of(pixels)
    for image, z0 in zip(pixels, together, strict=True):
        assert z0.shape == classifier.latent_shape and z0.dtype == np.float32
        alone = np.asarray(classifier.model.latent(image))
        np.testing.assert_allclose(z0, alone, rtol=1e-4, atol=1e-5)
    # a full batch in one call, and always one of the same size
    assert encoded[0] == BATCH
    assert Latents(classifier, None).of([]) == []


def test_what_cannot_be_kept_is_one_message(classifier, tmp_path):
    pixels = pictures(classifier, 1)
    Latents(classifier, tmp_path).of(pixels)
    (folder,) = tmp_path.iterdir()
    shutil.rmtree(folder)
    folder.touch()
    with pytest.raises(DiffjaxError, match=f"{folder}.*latents.*cannot be written"):
        Latents(classifier, tmp_path).of(pixels)


def test_what_is_kept_is_not_computed_again(classifier, encoded, tmp_path):
    pixels = pictures(classifier, 3)
    folder = tmp_path / "deep" / "cache"
    first = Latents(classifier, folder).of(pixels[:2])
    second = Latents(classifier, folder).of(pixels)
    assert len(encoded) == 2  # the second time for the third image
    third = Latents(classifier, folder).of(pixels[::-1])[::-1]
    assert len(encoded) == 2
    for got in (second, third):
        np.testing.assert_array_equal(got[:2], first)
    np.testing.assert_array_equal(second, third)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {path.suffix for path in files} == {".npz"}


def other_weights(model):
    state = jax.tree.map(lambda x: 1.5 * x, model.autoencoder.state)
    network = Network(model.autoencoder.graphdef, state)
    return dataclasses.replace(model, autoencoder=network)


OTHERS = {
    "weights": other_weights,
    "scale": lambda model: dataclasses.replace(model, scaling_factor=0.25),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_model_has_latents_of_its_own(classifier, encoded, tmp_path, name):
    pixels = pictures(classifier, 1)
    (kept,) = Latents(classifier, tmp_path).of(pixels)
    other = DiffusionClassifier(OTHERS[name](classifier.model), classifier.settings)
    (got,) = Latents(other, tmp_path).of(pixels)
    assert len(encoded) == 2
    assert np.abs(got - kept).max() > 1e-3
    (expected,) = Latents(other, None).of(pixels)
    np.testing.assert_array_equal(got, expected)


def test_another_denoiser_shares_them(classifier, encoded, tmp_path):
    pixels = pictures(classifier, 1)
    model = classifier.model
    state = jax.tree.map(lambda x: 2 * x, model.denoiser.state)
    tuned = dataclasses.replace(model, denoiser=Network(model.denoiser.graphdef, state))
    Latents(classifier, tmp_path).of(pixels)
    Latents(DiffusionClassifier(tuned, classifier.settings), tmp_path).of(pixels)
    assert len(encoded) == 1


@pytest.mark.parametrize("settings", [{"interpolation": "nearest"}, {"resolution": 12}])
def test_other_preprocessing_has_latents_of_its_own(
    classifier, encoded, tmp_path, settings
):
    Latents(classifier, tmp_path).of(pictures(classifier, 1))
    changed = dataclasses.replace(classifier.settings, **settings)
    other = DiffusionClassifier(classifier.model, changed)
    Latents(other, tmp_path).of(pictures(classifier, 1, **settings))
    assert len(encoded) == 2


def half(path):
    path.write_bytes(path.read_bytes()[:200])


def byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "half": half,
    "byte": byte,
    "text": lambda path: path.write_text("no archive"),
    "array": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': <<"),
    "name": lambda path: np.savez(path, z1=np.zeros((8, 8, 4), np.float32)),
    "shape": lambda path: np.savez(path, z0=np.zeros((2, 2, 4), np.float32)),
    "dtype": lambda path: np.savez(path, z0=np.zeros((8, 8, 4))),
    "pickle": lambda path: np.savez(path, z0=np.array([{}])),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_computed_again(classifier, encoded, tmp_path, name):
    pixels = pictures(classifier, 1)
    (kept,) = Latents(classifier, tmp_path).of(pixels)
    (path,) = tmp_path.rglob("*.npz")
    DAMAGES[name](path)
    with pytest.warns(UserWarning, match=f"{path.name} is damaged"):
        (got,) = Latents(classifier, tmp_path).of(pixels)
    assert len(encoded) == 2
    np.testing.assert_array_equal(got, kept)
    np.testing.assert_array_equal(np.load(path)["z0"], kept)
    assert not list(tmp_path.rglob(f"*{PARTIAL}"))
