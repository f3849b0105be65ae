"""Training: data and a recipe in, a checkpoint in the diffusers layout out.

OUT/run.json                 recipe, seed and classes: a resume must agree
OUT/autoencoder/, denoiser/  loss.csv and checkpoints of the two phases
OUT/tokenizer/               made first, from the captions
OUT/latents.npy              of all training images and their mirror images
OUT/model/                   the result
OUT/loss.png                 both loss curves
"""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int32, UInt8
from rich.console import Console

from diffjax.checkpoints.tokenizer import Tokenizer
from diffjax.data.sources import load_arrays
from diffjax.data.tfds import open_tfds
from diffjax.errors import DiffjaxError
from diffjax.schedules import Schedule
from diffjax.training.batches import batch_items, denoiser_batch, item_pixels
from diffjax.training.checkpoint import latest_step, load_checkpoint, save_checkpoint
from diffjax.training.export import export_pipeline
from diffjax.training.losses import LossLog, plot_losses
from diffjax.training.networks import build_networks, encode_items, read_latents
from diffjax.training.objective import autoencoder_loss, denoiser_loss
from diffjax.training.optimiser import initial_state, make_step
from diffjax.training.recipes import Phase, Recipe, get_recipe
from diffjax.training.tokenizer import save_tokenizer, train_tokenizer


def run_training(
    recipe_name: str,
    data_dir: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    steps: int | None = None,
    seed: int = 0,
) -> Path:
    """Train a recipe on a tensorflow-datasets directory; the command line's face.

    Args:
        recipe_name: a key of ``RECIPES``.
        data_dir: the folder of prepared data sets; None for the usual one.
        out: the run's folder; an interrupted run in it goes on.
        steps: stop after this many of the denoiser's steps; call again to go on.
        seed: of initial weights, batches and noise.

    Returns:
        The folder of the trained checkpoint.

    Raises:
        DiffjaxError: no such recipe or data, or ``out`` holds another run.
    """
    recipe = get_recipe(recipe_name)
    console = Console(stderr=True)
    source = open_tfds(recipe.dataset, recipe.split, data_dir)
    start_run(recipe, seed, Path(out))
    console.print(f"Reading {len(source):,} images of {source.name} {source.split}.")
    images, labels = load_arrays(source)
    return train(
        recipe,
        images,
        labels,
        source.class_names,
        Path(out),
        seed=seed,
        steps=steps,
        console=console,
    )


def start_run(recipe: Recipe, seed: int, out: Path) -> None:
    """Write OUT/run.json, or compare with the one that is there.

    Raises:
        DiffjaxError: a run is there that has another recipe
            or seed; the message names what differs.
    """
    path = out / "run.json"
    ours = json.loads(json.dumps({"seed": seed, "recipe": recipe.as_dict()}))
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(ours, indent=1) + "\n", encoding="utf-8")
        return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DiffjaxError(
            f"{path} cannot be read ({error}). Train in another folder."
        ) from error
    differences = list(_differences(theirs, ours, ""))
    if differences:
        raise DiffjaxError(
            f"{out} holds a run of another recipe or seed (there → now):\n  "
            + "\n  ".join(differences)
            + "\nTrain in another folder."
        )


def _differences(theirs: Any, ours: Any, name: str) -> "list[str]":
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            line
            for key in sorted(theirs.keys() | ours.keys())
            for line in _differences(
                theirs.get(key), ours.get(key), f"{name}.{key}".strip(".")
            )
        ]
    return [] if theirs == ours else [f"{name}: {theirs!r} → {ours!r}"]


def train(
    recipe: Recipe,
    images: UInt8[np.ndarray, "n H W 3"],
    labels: Int32[np.ndarray, " n"],
    class_names: Sequence[str],
    out: Path,
    *,
    seed: int,
    steps: int | None = None,
    console: Console,
) -> Path:
    """Both phases and the export, each from where a former call in ``out`` stopped.

    Args:
        recipe: what to train.
        images: RGB, 0 to 255.
        labels: indices into ``class_names``.
        class_names: what the captions say.
        out: the run's folder.
        seed: of everything random.
        steps: stop after this many of the denoiser's steps.
        console: where the progress bar goes.

    Returns:
        ``out / "model"``.
    """
    n, length = len(images), int(recipe.text_encoder["max_position_embeddings"])
    texts = [t.format(name) for t in recipe.templates for name in class_names]
    vocabulary, merges = train_tokenizer(texts, recipe.vocabulary)
    save_tokenizer(vocabulary, merges, length, out / "tokenizer")
    tokenizer = Tokenizer(out / "tokenizer", length, len(vocabulary))
    ids = tokenizer([*texts, ""]).ids
    captions = ids[:-1].reshape(len(recipe.templates), len(class_names), length)

    networks = build_networks(recipe, vocabulary, seed)
    vae_graph, vae = nnx.split(networks.vae)
    text_to_noise = (networks.unet, networks.text_encoder)
    graph, parameters = nnx.split(text_to_noise)

    phase = recipe.autoencoder
    vae = fit(
        phase,
        lambda parameters, pixels, key: autoencoder_loss(
            nnx.merge(vae_graph, parameters), pixels, key, recipe.kl_weight
        ),
        vae,
        lambda step: item_pixels(images, batch_items(2 * n, phase.batch, step, seed)),
        out / "autoencoder",
        seed=seed,
        console=console,
    )

    if not (out / "latents.npy").exists():
        console.print("Encoding the training images.")
        encode_items(vae_graph, vae, images, out / "latents.npy")
    latents, scaling_factor = read_latents(out / "latents.npy")
    schedule = Schedule.from_config(recipe.scheduler, f"recipe {recipe.name}")

    def loss_of_noise(parameters: Any, batch: Any, key: Any) -> Any:
        unet, text_encoder = nnx.merge(graph, parameters)
        return denoiser_loss(
            unet,
            text_encoder,
            schedule,
            batch.latents,
            batch.captions,
            batch.caption,
            batch.timesteps,
            key,
        )

    parameters = fit(
        recipe.denoiser,
        loss_of_noise,
        parameters,
        lambda step: denoiser_batch(
            latents,
            labels,
            captions,
            ids[-1],
            batch=recipe.denoiser.batch,
            empty_share=recipe.empty_caption,
            n_timesteps=schedule.n_timesteps,
            step=step,
            seed=seed,
        ),
        out / "denoiser",
        seed=seed + 1,  # the phases must not share their noise
        stop=steps,
        console=console,
    )

    logs = {name: out / name / "loss.csv" for name in ("autoencoder", "denoiser")}
    plot_losses(logs, out / "loss.png")
    unet, text_encoder = nnx.merge(graph, parameters)
    networks = dataclasses.replace(
        networks,
        vae=nnx.merge(vae_graph, vae),
        unet=unet,
        text_encoder=text_encoder,
    )
    export_pipeline(
        networks,
        recipe,
        scaling_factor=scaling_factor,
        tokenizer=out / "tokenizer",
        folder=out / "model",
    )
    console.print(f"Wrote {out / 'model'}.")
    return out / "model"


def fit(
    phase: Phase,
    loss: Callable[[Any, Any, Any], Any],
    parameters: Any,
    batch_of_step: Callable[[int], Any],
    folder: Path,
    *,
    seed: int,
    stop: int | None = None,
    console: Console,
) -> Any:
    """Run a phase from its last checkpoint to its end, or to step ``stop``.

    Args:
        phase: the numbers.
        loss: (parameters, batch, key) → scalar.
        parameters: to start from; any pytree.
        batch_of_step: a pure function of the step.
        folder: of loss.csv and the checkpoints.
        seed: of the steps' keys.
        stop: no step from this one on is made.
        console: where the progress bar goes.

    Returns:
        The averaged parameters.

    Raises:
        DiffjaxError: the loss is not finite, or the checkpoint is of other networks.
    """
    state = initial_state(phase, parameters)
    if latest_step(folder) is not None:
        state = load_checkpoint(folder, state)
    start, end = (
        int(state.step),
        phase.steps if stop is None else min(stop, phase.steps),
    )
    update = make_step(phase, loss, seed)
    losses: list[Any] = []
    with LossLog(folder, folder.name, start, phase.steps, console) as log:
        for step in range(start + 1, end + 1):
            state, value = update(state, batch_of_step(step - 1))
            losses.append(value)
            log.advance()
            if step % phase.log_every == 0 or step == end:
                mean = float(np.mean(jax.device_get(losses)))
                if not np.isfinite(mean):
                    raise DiffjaxError(
                        f"The loss of {folder.name} became {mean} by step {step}; a "
                        "lower learning rate in the recipe should help."
                    )
                log.write(step, mean, phase.batch * len(losses))
                losses = []
            if step % phase.checkpoint_every == 0 or step == end:
                save_checkpoint(folder, step, state)
    return state.average
