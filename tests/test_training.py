"""Training: steps are pure functions, a resume is exact, the result loads anywhere."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from safetensors.numpy import load_file

from diffjax.errors import DiffjaxError
from diffjax.schedules import Schedule
from diffjax.training.batches import batch_items, denoiser_batch, item_pixels
from diffjax.training.checkpoint import latest_step, load_checkpoint, save_checkpoint
from diffjax.training.loop import fit, run_training, start_run, train
from diffjax.training.networks import build_networks
from diffjax.training.objective import autoencoder_loss, denoiser_loss
from diffjax.training.recipes import Phase, get_recipe

CLASSES = ("cat", "dog", "ship")
TEST = get_recipe("test")
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


def make_batch(step, seed=3):
    """24 items of 12 images in 3 classes; captions' ids tell their class (mod 3)."""
    return denoiser_batch(
        np.arange(24, dtype=np.float32)[:, None, None, None],
        np.arange(12, dtype=np.int32) % 3,
        np.arange(2 * 3, dtype=np.int32).reshape(2, 3, 1),
        np.array([99], np.int32),
        batch=8,
        empty_share=0.25,
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


def test_each_latent_gets_a_caption_of_its_class_or_the_empty_one():
    empty = 0
    seen = set()
    for step in range(400):
        batch = make_batch(step)
        ids = batch.captions[batch.caption, 0]
        classes = batch.latents.ravel().astype(int) % 12 % 3
        assert all((ids == 99) | (ids % 3 == classes))
        empty += (ids == 99).sum()
        seen |= set(ids.tolist())
    assert abs(empty / 3200 - 0.25) < 0.03
    assert seen == {0, 1, 2, 3, 4, 5, 99}


def test_timesteps_are_stratified_and_cover_the_schedule():
    t = np.array([np.sort(make_batch(step).timesteps) for step in range(300)])
    low = np.arange(8) * 125
    assert ((t >= low) & (t < low + 125)).all()
    assert t.min() < 5 and t.max() > 994


# Objectives


@pytest.fixture(scope="module")
def networks():
    return build_networks(TEST, VOCABULARY, seed=0)


def test_the_untrained_denoiser_predicts_zero_so_its_loss_is_the_noise(networks):
    key, latents = jax.random.key(7), jnp.ones((4, 8, 8, 4))
    graph, parameters = nnx.split((networks.unet, networks.text_encoder))
    schedule = Schedule.from_config(TEST.scheduler, "test")
    captions, caption = jnp.zeros((2, 5), jnp.int32), jnp.array([0, 1, 1, 0])
    timesteps = jnp.array([0, 10, 500, 999])

    @jax.jit
    def loss(parameters):
        unet, text_encoder = nnx.merge(graph, parameters)
        return denoiser_loss(
            unet, text_encoder, schedule, latents, captions, caption, timesteps, key
        )

    expected = jnp.mean(jax.random.normal(key, latents.shape) ** 2)
    np.testing.assert_allclose(loss(parameters), expected, rtol=1e-6)


def test_the_autoencoder_pays_for_its_divergence(networks):
    graph, parameters = nnx.split(networks.vae)
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
    steps=6, batch=2, learning_rate=0.1, warmup=2, log_every=2, checkpoint_every=3
)


def fit_line(folder, stop=None, seed=0, phase=PHASE):
    def loss(w, x, key):
        return jnp.mean((w["w"] * x - 3 + 0.1 * jax.random.normal(key, x.shape)) ** 2)

    start = {"w": jnp.ones((3,))}
    x = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    average = fit(
        phase, loss, start, lambda k: x[k], folder, seed=seed, stop=stop, console=QUIET
    )
    return np.asarray(average["w"])


def test_stopping_and_going_on_gives_the_same_bits(tmp_path):
    whole = fit_line(tmp_path / "a")
    stopped = fit_line(tmp_path / "b", stop=3)
    resumed = fit_line(tmp_path / "b")
    np.testing.assert_array_equal(whole, resumed)
    assert (stopped != resumed).any()
    assert (whole != fit_line(tmp_path / "c", seed=1)).any()


def test_a_crash_between_checkpoints_leaves_one_row_a_step_in_the_log(tmp_path):
    fit_line(tmp_path, stop=5)
    (tmp_path / "step-00000005.safetensors").unlink()  # only 3 was reached on disk
    fit_line(tmp_path)
    assert [row["step"] for row in read_rows(tmp_path / "loss.csv")] == ["2", "4", "6"]


def test_the_last_two_checkpoints_are_kept(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"x": np.full(2, step)})
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["step-00000002.safetensors", "step-00000003.safetensors"]
    assert latest_step(tmp_path) == 3
    loaded = load_checkpoint(tmp_path, {"x": np.zeros(2)})
    np.testing.assert_array_equal(loaded["x"], [3, 3])


def test_damaged_and_foreign_checkpoints_are_named(tmp_path):
    save_checkpoint(tmp_path, 1, {"x": np.zeros(2)})
    with pytest.raises(DiffjaxError, match=r"step-00000001.*differs in 1 arrays.*'x'"):
        load_checkpoint(tmp_path, {"x": np.zeros(3)})
    with pytest.raises(DiffjaxError, match="'y'"):
        load_checkpoint(tmp_path, {"x": np.zeros(2), "y": np.zeros(1)})
    (tmp_path / "step-00000001.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(DiffjaxError, match=r"step-00000001.*cannot be read"):
        load_checkpoint(tmp_path, {"x": np.zeros(2)})


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
    assert latest_step(tmp_path) is None


def test_a_resume_under_another_recipe_or_seed_is_refused(tmp_path):
    start_run(TEST, 0, tmp_path)
    start_run(TEST, 0, tmp_path)
    other = dataclasses.replace(
        TEST, denoiser=dataclasses.replace(TEST.denoiser, batch=8)
    )
    with pytest.raises(DiffjaxError) as caught:
        start_run(other, 1, tmp_path)
    assert "recipe.denoiser.batch: 4 → 8" in str(caught.value)
    assert "seed: 0 → 1" in str(caught.value)


def test_bad_arguments_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DiffjaxError, match="no recipe 'huge'; there are: tiny, test"):
        run_training("huge", tmp_path, tmp_path / "out")
    with pytest.raises(DiffjaxError, match="no data set cifar10"):
        run_training("test", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The whole path

# 8×8 images, so that compiling and not computing takes the time
SMALL = dataclasses.replace(
    TEST,
    vae=dict(TEST.vae) | {"sample_size": 8},
    unet=dict(TEST.unet) | {"sample_size": 4},
)


def train_small(out, steps=None):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    labels = (np.arange(12) % len(CLASSES)).astype(np.int32)
    return train(
        SMALL, images, labels, CLASSES, out, seed=0, steps=steps, console=QUIET
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow  # compiles the denoiser's step twice more
def test_six_steps_are_three_and_three_more(trained, tmp_path):
    half = load_file(train_small(tmp_path, steps=3) / WEIGHTS)
    rest = load_file(train_small(tmp_path) / WEIGHTS)
    whole = load_file(trained / WEIGHTS)
    assert any((half[key] != whole[key]).any() for key in whole)
    for key, array in whole.items():
        np.testing.assert_array_equal(array, rest[key], err_msg=key)
    steps = [row["step"] for row in read_rows(tmp_path / "denoiser" / "loss.csv")]
    assert steps == ["3", "6"]


def test_a_run_leaves_its_logs_and_curve(trained):
    out = trained.parent
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    rows = read_rows(out / "autoencoder" / "loss.csv")
    assert list(rows[0]) == ["step", "loss", "images_per_second"]
    assert [row["step"] for row in rows] == ["2", "4"]
    card = (trained / "README.md").read_text()
    assert "`cifar10`" in card and "- `a photo of a {}.`" in card


def test_the_scaling_factor_makes_latents_of_unit_variance(trained):
    factor = json.loads((trained / "vae" / "config.json").read_text())["scaling_factor"]
    latents = np.load(trained.parent / "latents.npy")
    assert latents.shape == (24, 4, 4, 4)
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
    latents = random.normal(size=(2, 4, 4, 4)).astype(np.float32)
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
