"""The discriminative network and its files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_resnet import NAMES, SMALL

from diffjax.baselines.classifier import batch_of
from diffjax.baselines.own import load_classifier, save_classifier
from diffjax.baselines.resnet import ResNet, ResNetConfig, resnet_loss
from diffjax.errors import DiffjaxError


@pytest.fixture(scope="module")
def model():
    return ResNet(SMALL, rngs=nnx.Rngs(0))


@pytest.fixture
def folder(model, tmp_path):
    save_classifier(model, NAMES, tmp_path / "resnet")
    return tmp_path / "resnet"


def images(n, side=8, seed=0):
    random = np.random.default_rng(seed)
    return jnp.asarray(random.uniform(-1, 1, (n, side, side, 3)), jnp.float32)


def test_the_default_size():
    state = nnx.state(nnx.eval_shape(lambda: ResNet(ResNetConfig(), rngs=nnx.Rngs(0))))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 696_234


def test_any_size_of_image(model):
    shapes = [nnx.eval_shape(model, images(1, side)[0]) for side in (8, 13)]
    assert {(shape.shape, str(shape.dtype)) for shape in shapes} == {((3,), "float32")}


def test_the_loss_is_the_cross_entropy_and_every_parameter_matters(model):
    pixels, labels = images(4), jnp.array([0, 2, 1, 2])
    graph, parameters = nnx.split(model)

    def loss(parameters):
        return resnet_loss(nnx.merge(graph, parameters), pixels, labels)

    found, gradient = jax.jit(jax.value_and_grad(loss))(parameters)
    for path, leaf in nnx.to_flat_state(gradient):
        assert np.abs(leaf[...]).max() > 0, path
    logits = np.asarray(jax.jit(jax.vmap(model))(pixels))
    rows = zip(logits, labels, strict=True)
    wanted = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in rows])
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_it_learns_colours(model):
    random = np.random.default_rng(0)
    colours = np.array([[0.6, -0.6, -0.6], [-0.6, 0.6, -0.6], [-0.6, -0.6, 0.6]])
    labels = jnp.asarray(random.integers(3, size=32))
    pixels = images(32, seed=1) * 0.6 + colours[labels][:, None, None]
    graph, parameters = nnx.split(model)
    optimiser = optax.adam(1e-2)

    @jax.jit
    def step(parameters, state):
        loss, gradient = jax.value_and_grad(
            lambda p: resnet_loss(nnx.merge(graph, p), pixels, labels)
        )(parameters)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(parameters, updates), state, loss

    state, losses = optimiser.init(parameters), []
    for _ in range(30):
        parameters, state, loss = step(parameters, state)
        losses.append(float(loss))
    assert losses[0] > 0.8 and losses[-1] < 0.2


def test_saved_and_loaded(model, folder):
    classifier = load_classifier(folder)
    assert classifier.class_names == NAMES and classifier.resolution == 8
    pixels = np.asarray(images(batch_of(8) + 3))
    found = classifier.log_probabilities(pixels)
    wanted = jax.nn.log_softmax(jax.vmap(model)(jnp.asarray(pixels)))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)
    assert classifier.log_probabilities(pixels[:0]).shape == (0, 3)
    image = np.full((20, 16, 3), 255, np.uint8)
    np.testing.assert_array_equal(classifier.pixels(image), np.ones((8, 8, 3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 4}, "id2label must name the classes 0 to 3"),
        ({"norm_num_groups": 3}, "do not divide"),
        ({"block_out_channels": [4, 16]}, "of another shape"),
        ({"layers_per_block": 2}, "missing"),
        ({"dropout": 0.5}, "dropout"),
    ],
)
def test_files_that_do_not_belong_together(folder, change, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DiffjaxError, match=message):
        load_classifier(folder)


def test_names_that_do_not_fit(model, tmp_path):
    with pytest.raises(ValueError, match="2 names, 3 classes"):
        save_classifier(model, NAMES[:2], tmp_path)


def test_what_is_no_name_and_no_folder_is_told_so(tmp_path):
    with pytest.raises(DiffjaxError, match=r"neither resnet.* nor a folder"):
        load_classifier(tmp_path / "nonsense")
