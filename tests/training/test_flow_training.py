"""A flow that is trained here: it learns, and knows which way its time runs."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from rich.console import Console

from diffjax.checkpoints.loading import load_model
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.training.objective import denoiser_loss
from diffjax.training.recipes import get_recipe, of_length
from diffjax.training.runs import train

NAMES = ("left", "right", "top")


def pictures(n, seed):
    """28×28 pictures whose left, right or upper half is bright, and their labels."""
    random = np.random.default_rng(seed)
    labels = (np.arange(n) % 3).astype(np.int32)
    images = random.integers(0, 60, (n, 28, 28, 1))
    for image, label in zip(images, labels, strict=True):
        half = (slice(None), slice(14)), (slice(None), slice(14, None)), (slice(14),)
        image[half[label]] += random.integers(100, 180)
    return np.repeat(images, 3, axis=-1).astype(np.uint8), labels


@pytest.mark.slow  # trains
def test_a_small_flow_learns_and_knows_its_time(tmp_path):
    recipe = of_length(get_recipe("tiny-flow"), 120)
    transformer = dict(recipe.transformer) | {
        "num_attention_heads": 3,
        "num_layers": 2,
        "num_embeds_ada_norm": 3,
    }
    few = dataclasses.replace(recipe.denoiser, batch=32, log_every=20)
    recipe = dataclasses.replace(recipe, transformer=transformer, denoiser=few)
    images, labels = pictures(120, 0)
    model = train(
        *(recipe, images, labels, NAMES, tmp_path),
        seed=0,
        steps=None,
        console=Console(quiet=True),
    )
    with (tmp_path / "denoiser" / "loss.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.6 * losses[0] and losses[0] < 2.1  # E|ε − z0|² = 2

    loaded = load_model(model)
    assert loaded.schedule.prediction_type == "flow" and not loaded.learned_variance
    config = json.loads((model / "scheduler/scheduler_config.json").read_text())
    theirs = FlowMatchEulerDiscreteScheduler.from_config(config)
    np.testing.assert_allclose(loaded.schedule.time[::-1], theirs.timesteps, rtol=1e-6)

    clf = DiffusionClassifier(loaded)
    fresh, truth = pictures(12, 1)
    assert [clf.classify(image).label for image in fresh] == [NAMES[c] for c in truth]

    z0 = np.stack([loaded.latent(clf.pixels(image)) for image in fresh])

    @jax.jit
    def loss(time, t):
        schedule = dataclasses.replace(loaded.schedule, time=time)
        network, ids = loaded.denoiser.module(), jnp.asarray(truth)
        index = jnp.full(len(z0), t, jnp.int32)
        return denoiser_loss(
            *(network, schedule, jnp.asarray(z0), ids, index, jax.random.key(0))
        )

    time = loaded.schedule.time
    told = {t: float(loss(time, t)) for t in (20, 250, 500, 750, 980)}
    # near the image nothing is known of the noise, whose variance is 1; elsewhere the
    # class says much of the image
    assert 0.8 < told[20] < 1.5 and told[20] == max(told.values())
    for t in (100, 250, 750, 900):  # the other way round it is told another noise level
        assert loss(time, t) < loss(time[::-1], t)
        assert loss(time, t) < loss(jnp.zeros_like(time), t)
