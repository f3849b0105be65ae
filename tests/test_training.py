"""Training: steps are pure functions, a resume is exact, the result loads anywhere."""

import csv
import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from safetensors.numpy import load_file
from small import DIT

from diffjax.baselines.classifier import load_classifier
from diffjax.classifier import DiffusionClassifier
from diffjax.errors import DiffjaxError
from diffjax.models.autoencoder import AutoencoderKL, AutoencoderKLConfig
from diffjax.models.dit import DiTTransformer2DModel
from diffjax.schedules import Schedule
from diffjax.training.batches import (
    Captions,
    batch_items,
    class_batch,
    item_pixels,
    text_batch,
)
from diffjax.training.checkpoint import Checkpoints
from diffjax.training.initial import initial_network
from diffjax.training.loop import batch_shardings, fit
from diffjax.training.objective import autoencoder_loss, denoiser_loss
from diffjax.training.optimiser import make_optimiser, matrices
from diffjax.training.recipes import (
    Phase,
    TextToImage,
    get_recipe,
    of_length,
)
from diffjax.training.runs import run_training, start_run, train
from diffjax.training.samples import sample
from diffjax.training.text_to_image import build_networks

CLASSES = ("cat", "dog", "ship")
TEST = get_recipe("test")
TEST_DIT = get_recipe("test-dit")
VOCABULARY = ["a", "<|startoftext|>", "<|endoftext|>"]
QUIET = Console(quiet=True)
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Batches


def test_an_epoch_shows_every_item_once_and_the_next_in_another_order():
    first = np.concatenate([batch_items(12, 3, step, seed=1) for step in range(4)])
    second = np.concatenate([batch_items(12, 3, step, seed=1) for step in range(4, 8)])
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)


def test_items_past_the_images_are_flipped():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    plain, flipped = item_pixels(images, np.array([1, 3], np.int32))
    np.testing.assert_array_equal(plain, flipped[:, ::-1])
    np.testing.assert_allclose(plain, images[1] / 127.5 - 1, atol=1e-6)


CAPTIONS = Captions(  # ids of a class's captions tell the class (mod 3)
    of_classes=np.arange(2 * 3, dtype=np.int32).reshape(2, 3, 1),
    of_items=np.arange(50, 56, dtype=np.int32)[:, None],
    empty=np.array([99], np.int32),
)


def make_batch(step, seed=3):
    """24 items of 12 images in 3 classes, and 6 further items."""
    return text_batch(
        np.arange(30, dtype=np.float32)[:, None, None, None],
        np.arange(12, dtype=np.int32) % 3,
        CAPTIONS,
        batch=8,
        empty=0.25,
        n_timesteps=1000,
        step=step,
        seed=seed,
    )


def test_a_batch_is_a_pure_function_of_seed_and_step():
    for a, b in zip(make_batch(5), make_batch(5), strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (make_batch(6), make_batch(5, seed=4)):
        assert (make_batch(5).latents != other.latents).any()
        assert (make_batch(5).timesteps != other.timesteps).any()


def test_each_latent_gets_a_caption_of_its_own_or_the_empty_one():
    empty = 0
    seen = set()
    for step in range(400):
        batch = make_batch(step)
        ids = batch.captions[:, 0]
        items = batch.latents.ravel().astype(int)
        fits = np.where(items < 24, ids % 3 == items % 12 % 3, ids == 50 + items - 24)
        assert all((ids == 99) | fits)
        empty += (ids == 99).sum()
        seen |= set(ids.tolist())
    assert abs(empty / 3200 - 0.25) < 0.03
    assert seen == {0, 1, 2, 3, 4, 5, 50, 51, 52, 53, 54, 55, 99}


def test_each_latent_gets_its_class_or_none():
    labels = np.arange(12, dtype=np.int32) % 3
    without = 0
    for step in range(400):
        batch = class_batch(
            np.arange(24, dtype=np.float32)[:, None, None, None],
            labels,
            n_classes=3,
            batch=8,
            empty=0.25,
            n_timesteps=1000,
            step=step,
            seed=3,
        )
        items = batch.latents.ravel().astype(int)
        assert all((batch.classes == 3) | (batch.classes == items % 12 % 3))
        without += (batch.classes == 3).sum()
    assert abs(without / 3200 - 0.25) < 0.03
    np.testing.assert_array_equal(labels, np.arange(12) % 3)  # left as they were


def test_without_flipped_images_further_items_follow_the_images():
    labels = np.arange(12, dtype=np.int32) % 3
    captions = Captions(
        of_classes=np.arange(3, dtype=np.int32)[None, :, None],
        of_items=np.arange(50, 56, dtype=np.int32)[:, None],
        empty=np.array([99], np.int32),
    )
    seen = set()
    for step in range(100):
        batch = text_batch(
            np.arange(18, dtype=np.float32)[:, None, None, None],
            labels,
            captions,
            batch=6,
            empty=0.0,
            n_timesteps=1000,
            step=step,
            seed=3,
        )
        items = batch.latents.ravel().astype(int)
        ids = batch.captions[:, 0]
        assert all(np.where(items < 12, ids == items % 3, ids == 50 + items - 12))
        seen |= set(items.tolist())
    assert seen == set(range(18))


def test_logit_normal_timesteps_have_that_mean_and_spread():
    labels = np.zeros(64, np.int32)
    t = [
        class_batch(
            np.zeros((64, 1, 1, 1), np.float32),
            labels,
            n_classes=1,
            batch=64,
            empty=0.0,
            n_timesteps=100_000,
            logit_normal=(-0.5, 1.2),
            step=step,
            seed=0,
        ).timesteps
        for step in range(50)
    ]
    share = (np.concatenate(t) + 0.5) / 100_000
    logits = np.log(share / (1 - share))
    assert abs(logits.mean() + 0.5) < 0.02
    assert abs(logits.std() - 1.2) < 0.02


def test_timesteps_are_stratified_and_cover_the_schedule():
    t = np.array([np.sort(make_batch(step).timesteps) for step in range(300)])
    low = np.arange(8) * 125
    assert ((t >= low) & (t < low + 125)).all()
    assert t.min() < 5 and t.max() > 994


# Objectives


def test_the_untrained_denoiser_predicts_zero_so_its_loss_is_the_noise():
    key, latents = jax.random.key(7), jnp.ones((4, 8, 8, 4))
    unet, _, _ = build_networks(TEST, VOCABULARY, seed=0)
    graph, parameters = nnx.split(unet)
    schedule = Schedule.from_config(TEST.scheduler, "test")
    states, timesteps = jnp.ones((4, 5, 8)), jnp.array([0, 10, 500, 999])

    @jax.jit
    def loss(parameters):
        unet = nnx.merge(graph, parameters)
        return denoiser_loss(unet, schedule, latents, states, timesteps, key)

    expected = jnp.mean(jax.random.normal(key, latents.shape) ** 2)
    np.testing.assert_allclose(loss(parameters), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def bound_gradients():
    """Of the loss with w = 0 and w = 1, by an untrained transformer."""
    network = initial_network(DiTTransformer2DModel, DIT, np.random.default_rng(0))
    graph, parameters = nnx.split(network)
    schedule = Schedule.from_config(TEST_DIT.scheduler, "test")

    @jax.jit
    def gradient(parameters, weight):
        return jax.grad(
            lambda parameters: denoiser_loss(
                nnx.merge(graph, parameters),
                schedule,
                jnp.ones((3, 4, 4, 4)),
                jnp.array([0, 1, 10]),
                jnp.array([0, 400, 999]),
                jax.random.key(0),
                weight,
            )
        )(parameters)

    return [gradient(parameters, weight)["proj_out_2"] for weight in (0.0, 1.0)]


def test_the_bound_trains_the_variance_and_nothing_else(bound_gradients):
    without, with_bound = (
        np.asarray(g["bias"][...]).reshape(2, 2, 8) for g in bound_gradients
    )
    np.testing.assert_array_equal(without[..., 4:], 0)
    assert (with_bound[..., 4:] != 0).all() and np.isfinite(with_bound).all()
    np.testing.assert_allclose(with_bound[..., :4], without[..., :4], rtol=1e-5)


def test_the_autoencoder_pays_for_its_divergence():
    config = AutoencoderKLConfig.from_dict(TEST.vae, "test")
    network = initial_network(AutoencoderKL, config, np.random.default_rng(0))
    graph, parameters = nnx.split(network)
    pixels = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3), minval=-1)
    key = jax.random.key(2)

    @jax.jit
    def cost_and_posterior(parameters, weight):
        vae = nnx.merge(graph, parameters)
        return autoencoder_loss(vae, pixels, key, weight), jax.vmap(vae.encode)(pixels)

    free, (mean, logvar) = cost_and_posterior(parameters, 0.0)
    dear, _ = cost_and_posterior(parameters, 2.0)
    # KL(N(μ, σ²) ‖ N(0, 1)) as E_q[log q − log p], by 64-point quadrature
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    z = mean[..., None] + jnp.exp(logvar / 2)[..., None] * nodes
    difference = -logvar[..., None] / 2 - nodes**2 / 2 + z**2 / 2
    divergence = (difference * weights).sum(-1) / weights.sum()
    np.testing.assert_allclose(dear - free, 2 * divergence.mean(), rtol=1e-4)


# The loop

PHASE = Phase(
    steps=20, batch=2, learning_rate=0.1, warmup=2, log_every=5, checkpoint_every=5
)


LINE = np.random.default_rng(1).normal(size=(20, 2, 3)).astype(np.float32)


def fit_line(
    folder,
    stop=None,
    seed=0,
    phase=PHASE,
    x=LINE.__getitem__,
    show=lambda step, average: None,
):
    def loss(w, x, key):
        return jnp.mean((w["w"] * x - 3 + 0.1 * jax.random.normal(key, x.shape)) ** 2)

    average = fit(
        phase,
        loss,
        {"w": jnp.ones((3,))},
        x,
        folder,
        seed=seed,
        stop=stop,
        show=show,
        console=QUIET,
    )
    return np.asarray(average["w"])


def test_twenty_steps_are_ten_and_ten_more_to_the_last_bit(tmp_path):
    whole = fit_line(tmp_path / "a")
    stopped = fit_line(tmp_path / "b", stop=10)
    resumed = fit_line(tmp_path / "b")
    np.testing.assert_array_equal(whole, resumed)
    assert (stopped != resumed).any()
    assert (whole != fit_line(tmp_path / "c", seed=1)).any()


KILLED = """
import sys
from pathlib import Path
import numpy as np
import test_training

seen = 0


def x(k):
    global seen
    seen += 1
    if seen == 14:  # past the checkpoint of step 10, before that of step 15
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return test_training.LINE[k]


test_training.fit_line(Path(sys.argv[1]), x=x)
"""


def test_a_killed_run_goes_on_to_the_same_end(tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "killed"],
        cwd=Path(__file__).parent,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with Checkpoints(tmp_path / "killed" / "checkpoints") as checkpoints:
        assert checkpoints.latest == 10
    resumed = fit_line(tmp_path / "killed")
    np.testing.assert_array_equal(resumed, fit_line(tmp_path / "whole"))
    steps = [row["step"] for row in read_rows(tmp_path / "killed" / "loss.csv")]
    assert steps == ["5", "10", "15", "20"]


def test_a_batch_split_over_devices_trains_as_one_device_does(tmp_path):
    assert jax.local_device_count() == 2
    odd = dataclasses.replace(PHASE, batch=3)  # does not divide: one device
    x = np.random.default_rng(2).normal(size=(20, 6, 3)).astype(np.float32)
    even = dataclasses.replace(PHASE, batch=6)
    for batch, devices in ((6, 2), (3, 1)):
        assert len(batch_shardings(batch)[1].device_set) == devices
    two = fit_line(tmp_path / "two", phase=even, x=lambda k: x[k])
    one = fit_line(tmp_path / "one", phase=odd, x=lambda k: x[k])
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_sample_images_are_asked_for_at_their_steps(tmp_path):
    phase = dataclasses.replace(PHASE, show_every=8)
    shown = []
    fit_line(tmp_path, phase=phase, show=lambda step, w: shown.append((step, w["w"])))
    assert [step for step, _ in shown] == [8, 16]


def test_muon_takes_the_matrices_between_first_and_last_layer():
    leaves = {
        "conv_in.kernel": jnp.ones((3, 3, 4, 8)),
        "mid.conv1.kernel": jnp.ones((3, 3, 8, 16)),
        "mid.conv1.bias": jnp.ones(16),
        "block.0.to_q.kernel": jnp.ones((8, 8)),
        "class_embedder.embedding": jnp.ones((10, 8)),
        "norm.scale": jnp.ones(8),
        "proj_out_2.kernel": jnp.ones((8, 16)),
    }
    chosen = {name: d for name, d in matrices(leaves).items() if d is not None}
    assert set(chosen) == {"mid.conv1.kernel", "block.0.to_q.kernel"}
    assert chosen["mid.conv1.kernel"] == ((0, 1, 2), 3)

    # its first step makes all singular values of a gradient nearly equal
    phase = dataclasses.replace(PHASE, muon_rate=1.0, warmup=0)
    optimiser = make_optimiser(phase, leaves)
    random = np.random.default_rng(1)
    gradient = {
        name: random.normal(size=leaf.shape).astype(np.float32)
        for name, leaf in leaves.items()
    }
    updates = jax.jit(
        lambda gradient: optimiser.update(gradient, optimiser.init(leaves), leaves)[0]
    )(gradient)
    values = np.linalg.svd(
        np.asarray(updates["mid.conv1.kernel"]).reshape(72, 16), compute_uv=False
    )
    assert values.max() / values.min() < 2
    # Adam's first step, with Nesterov's look ahead, is the same for all weights
    steps = np.abs(updates["class_embedder.embedding"])
    assert steps.max() / steps.min() < 1.01
    assert 1 < steps.max() / PHASE.learning_rate < 2


def test_the_last_two_checkpoints_are_kept(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest is None
        for step in (1, 2, 3):
            checkpoints.save(step, {"x": np.full(2, step)})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
        assert checkpoints.latest == 3
        loaded = checkpoints.load({"x": np.zeros(2)})
    np.testing.assert_array_equal(loaded["x"], [3, 3])


def test_damaged_and_foreign_checkpoints_are_named(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, {"x": np.zeros(2)})
        with pytest.raises(DiffjaxError, match=r"/7 was .* differs in 1 arrays.* x\."):
            checkpoints.load({"x": np.zeros(3)})
        with pytest.raises(DiffjaxError, match="such as y"):
            checkpoints.load({"x": np.zeros(2), "y": np.zeros(1)})
        for file in (tmp_path / "7" / "default").rglob("*"):
            if file.is_file():
                file.write_bytes(b"\xff" * 20)
        with pytest.raises(DiffjaxError, match=r"/7 cannot be read"):
            checkpoints.load({"x": np.zeros(2)})


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    phase = dataclasses.replace(PHASE, steps=2, warmup=1)
    with pytest.raises(DiffjaxError, match=r"became nan by step 2; a lower learning"):
        fit(
            phase,
            lambda w, x, key: jnp.sum(w * x),
            jnp.ones(2),
            lambda k: np.full(2, np.nan, np.float32),
            tmp_path,
            seed=0,
            console=QUIET,
        )
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest is None


def test_a_resume_under_another_recipe_or_seed_is_refused(tmp_path):
    start_run(TEST, 0, tmp_path, data="cifar")
    start_run(TEST, 0, tmp_path, data="cifar")
    other = dataclasses.replace(
        TEST, denoiser=dataclasses.replace(TEST.denoiser, batch=8)
    )
    with pytest.raises(DiffjaxError) as caught:
        start_run(other, 1, tmp_path, data="other images")
    assert "recipe.denoiser.batch: 4 → 8" in str(caught.value)
    assert "seed: 0 → 1" in str(caught.value)
    assert "data: 'cifar' → 'other images'" in str(caught.value)


def test_bad_arguments_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(
        DiffjaxError, match="no recipe 'huge'; there are: tiny, tiny-full"
    ):
        run_training("huge", tmp_path, tmp_path / "out")
    with pytest.raises(DiffjaxError, match="no data set cifar10"):
        run_training("test", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The whole path

# the phases' batches divide among different numbers of devices
SMALL = dataclasses.replace(
    TEST, scenes=6, autoencoder=dataclasses.replace(TEST.autoencoder, batch=3)
)


def train_small(out, recipe=SMALL, steps=None, n=12):
    random = np.random.default_rng(0)
    size = 28 if recipe.dataset == "fashion_mnist" else 32
    images = random.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    labels = (np.arange(n) % len(CLASSES)).astype(np.int32)
    return train(
        recipe, images, labels, CLASSES, out, seed=0, steps=steps, console=QUIET
    )


def of_three_classes(recipe):
    transformer = dict(recipe.transformer) | {"num_embeds_ada_norm": len(CLASSES)}
    return dataclasses.replace(recipe, transformer=transformer)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow  # compiles the denoiser's step twice more
def test_six_steps_are_three_and_three_more(trained, tmp_path):
    half = load_file(train_small(tmp_path, steps=3) / WEIGHTS)
    assert "3 steps of 6, stopped" in (tmp_path / "model" / "README.md").read_text()
    rest = load_file(train_small(tmp_path) / WEIGHTS)
    whole = load_file(trained / WEIGHTS)
    assert any((half[key] != whole[key]).any() for key in whole)
    for key, array in whole.items():
        np.testing.assert_array_equal(array, rest[key], err_msg=key)
    steps = [row["step"] for row in read_rows(tmp_path / "denoiser" / "loss.csv")]
    assert steps == ["3", "6"]


@pytest.mark.slow  # compiles the largest networks that are trained
@pytest.mark.parametrize("name", ["tiny-full", "tiny-dit-full"])
def test_a_recipe_for_accelerators_runs_on_a_cpu_when_cut(name, tmp_path):
    recipe = of_length(get_recipe(name), 1)
    if isinstance(recipe, TextToImage):
        recipe = dataclasses.replace(recipe, scenes=6)
    else:
        recipe = of_three_classes(recipe)
    n = recipe.denoiser.batch  # images, at least as many as a batch
    model = train_small(tmp_path, recipe, n=n)
    DiffusionClassifier.from_pretrained(model)
    card = (model / "README.md").read_text()
    assert "Denoiser: 1 step, of 256 images" in card


def test_a_run_leaves_its_logs_and_curve(trained):
    out = trained.parent
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    rows = read_rows(out / "autoencoder" / "loss.csv")
    assert list(rows[0]) == ["step", "loss", "images_per_second"]
    assert [row["step"] for row in rows] == ["3", "6"]
    assert (out / "denoiser" / "samples-000006.png").exists()
    card = (trained / "README.md").read_text()
    assert "`cifar10`" in card and "- `a photo of a {}.`" in card


def test_the_scaling_factor_makes_latents_of_unit_variance(trained):
    factor = json.loads((trained / "vae" / "config.json").read_text())["scaling_factor"]
    latents = np.load(trained.parent / "latents.npy")
    assert latents.shape == (2 * 12 + 6, 16, 16, 4)
    np.testing.assert_allclose((latents * factor).std(), 1, rtol=1e-4)


def test_torch_reads_the_export_and_computes_the_same(trained):
    import torch
    from diffusers import StableDiffusionPipeline

    from diffjax.checkpoints.loading import load_model

    pipeline = StableDiffusionPipeline.from_pretrained(trained, dtype=torch.float32)
    ours = load_model(trained)
    prompts = ["a photo of a ship.", ""]
    ids = pipeline.tokenizer(
        prompts, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    random = np.random.default_rng(0)
    latents = random.normal(size=(2, 16, 16, 4)).astype(np.float32)
    with torch.no_grad():
        states = pipeline.text_encoder(ids).last_hidden_state
        noise = pipeline.unet(
            torch.tensor(latents).permute(0, 3, 1, 2), torch.tensor([3, 700]), states
        ).sample.permute(0, 2, 3, 1)
        image = pipeline.vae.decode(torch.tensor(latents).permute(0, 3, 1, 2)).sample
    conditions = jax.vmap(ours.text_encoder.module())(ours.tokenize(prompts).ids)
    np.testing.assert_allclose(conditions, states.numpy(), atol=1e-4)
    predicted = jax.vmap(ours.denoiser.module())(
        latents, jnp.array([3, 700]), conditions
    )
    np.testing.assert_allclose(predicted, noise.numpy(), atol=1e-4)
    decoded = jax.vmap(ours.autoencoder.module().decode)(latents)
    np.testing.assert_allclose(decoded, image.permute(0, 2, 3, 1).numpy(), atol=1e-4)
    assert np.abs(noise.numpy()).max() > 1e-3  # six steps moved it off zero


def test_torch_reads_an_exported_dit_and_computes_the_same(tmp_path):
    import torch
    from diffusers import DiTPipeline

    from diffjax.checkpoints.loading import load_model

    model = train_small(tmp_path, of_three_classes(TEST_DIT))
    pipeline = DiTPipeline.from_pretrained(model, dtype=torch.float32)
    assert pipeline.labels == {"cat": 0, "dog": 1, "ship": 2}
    ours = load_model(model)
    assert ours.class_names == CLASSES and ours.learned_variance
    latents = np.random.default_rng(0).normal(size=(2, 14, 14, 4)).astype(np.float32)
    with torch.no_grad():
        output = pipeline.transformer(
            torch.tensor(latents).permute(0, 3, 1, 2),
            torch.tensor([3, 700]),
            torch.tensor([1, 3]),
        ).sample.permute(0, 2, 3, 1)
    predicted = jax.vmap(ours.denoiser.module())(
        latents, jnp.array([3, 700]), jnp.array([1, 3])
    )
    np.testing.assert_allclose(predicted, output.numpy(), atol=1e-4)
    assert np.abs(predicted).max() > 1e-3  # six steps moved it off zero
    assert "by class; 10% of them without" in (model / "README.md").read_text()


def test_a_resnet_is_trained_by_the_same_loop(tmp_path):
    model = train_small(tmp_path, get_recipe("test-resnet"))
    classifier = load_classifier(model)
    assert classifier.class_names == CLASSES
    assert classifier.resolution == 32
    pixels = np.zeros((2, 32, 32, 3), np.float32)
    probabilities = np.exp(classifier.log_probabilities(pixels))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    rows = read_rows(tmp_path / "classifier" / "loss.csv")
    assert [row["step"] for row in rows] == ["3", "6"]
    assert abs(float(rows[0]["loss"]) - np.log(3)) < 0.5  # nearly untrained
    assert (tmp_path / "loss.png").exists()


# Sample images


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_samples_of_a_perfect_model_of_one_image_are_that_image(prediction):
    image = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 1)))
    config = dict(TEST_DIT.scheduler) | {"prediction_type": prediction}
    schedule = Schedule.from_config(config, "test")

    def denoise(z_t, t):
        a, s = schedule.alpha_bar[t] ** 0.5, (1 - schedule.alpha_bar[t]) ** 0.5
        noise = (z_t - a * image) / s
        return noise if prediction == "epsilon" else a * noise - s * image

    drawn = sample(denoise, schedule, image.shape, jax.random.key(0), steps=10)
    np.testing.assert_allclose(drawn, image, atol=1e-4)
