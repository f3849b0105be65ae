"""Training runs: a recipe's name and a folder in, a checkpoint out.

OUT/run.json                 recipe, seed, data and beginning: a resume must agree
OUT/autoencoder/, denoiser/  loss.csv and checkpoints of a diffusion model's two phases
OUT/classifier/              the same of a classifier's one
OUT/latents.npy              of all training images, and of their mirror images
OUT/model/                   the result; a diffusion model as diffusers' pipelines load
OUT/loss.png                 the loss curves
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8
from rich.console import Console

from diffjax.data.folders import open_folder
from diffjax.data.sources import Source, digest
from diffjax.data.tfds import open_tfds
from diffjax.errors import DiffjaxError
from diffjax.files import json_text, read_json, write_json
from diffjax.tracing import pinned
from diffjax.training.beginning import Beginning
from diffjax.training.diffusion import train_diffusion
from diffjax.training.discriminative import train_discriminative
from diffjax.training.images import check_data, square_arrays
from diffjax.training.log import plot_losses
from diffjax.training.recipes import (
    Diffusion,
    Discriminative,
    Recipe,
    compute_dtype,
    get_recipe,
    of_length,
)


def run_training(
    recipe_name: str,
    data_dir: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    length: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    init: str | None = None,
    data: str | os.PathLike[str] | None = None,
    resize: int | None = None,
) -> Path:
    """Train a recipe on a tensorflow-datasets directory; the command line's face.

    Args:
        recipe_name: a key of ``RECIPES``.
        data_dir: the folder of prepared data sets; None for the usual one.
        out: the run's folder; an interrupted run in it goes on.
        length: steps of the last phase in all, and at most of an earlier one; None
            for the recipe's own.
        steps: stop after this many of the last phase's steps; call again to go on.
        seed: of initial weights, batches and noise.
        init: a model, by name or folder, whose weights are trained on; its
            autoencoder is kept. By default weights begin at random.
        data: an image folder in place of the recipe's data set, for a classifier.
        resize: the edge that its images are resized and cropped to; None takes them
            as they are.

    Returns:
        The folder of the trained checkpoint.

    Raises:
        DiffjaxError: no such recipe, model or data, or ``out`` holds another run.
    """
    recipe = get_recipe(recipe_name)
    if length is not None:
        recipe = of_length(recipe, length)
    console = Console(stderr=True)
    if init is not None and not isinstance(recipe, Diffusion):
        raise DiffjaxError(f"Recipe {recipe.name} always begins at random.")
    if data is None:
        source: Source = open_tfds(recipe.dataset, recipe.split, data_dir)
    else:
        source = open_folder(data)
    check_data(recipe, source, own=data is not None, resize=resize)
    beginning = None if init is None else Beginning(init)
    what = f"Reading {len(source):,} images of {source.name} {source.split}."
    console.print(what, markup=False, soft_wrap=True)
    images, labels = square_arrays(source, resize)
    stored = source.fingerprint
    if data is not None:  # a folder's says nothing of what is in its files
        stored = digest([*source.class_names, images.tobytes(), labels.tobytes()])
    start_run(recipe, seed, Path(out), beginning, stored, resize)
    return train(
        recipe,
        images,
        labels,
        source.class_names,
        Path(out),
        seed=seed,
        steps=steps,
        beginning=beginning,
        console=console,
    )


@pinned()
def train(
    recipe: Recipe,
    images: UInt8[np.ndarray, "n H W 3"],
    labels: Int32[np.ndarray, " n"],
    class_names: Sequence[str],
    out: Path,
    *,
    seed: int,
    steps: int | None = None,
    beginning: Beginning | None = None,
    console: Console,
) -> Path:
    """Train a recipe on arrays; the arguments are those of ``train_diffusion``.

    Returns:
        ``out / "model"``.
    """
    data = (images, labels, class_names, out)
    told: dict[str, Any] = {"seed": seed, "steps": steps, "console": console}
    if isinstance(recipe, Discriminative):
        train_discriminative(recipe, *data, **told)
    elif isinstance(recipe, Diffusion):
        train_diffusion(recipe, *data, beginning=beginning, **told)
    logs = {name: out / name / "loss.csv" for name in recipe.phases()}
    done = {name: log for name, log in logs.items() if log.exists()}
    plot_losses(done, out / "loss.png")
    console.print(f"Wrote {out / 'model'}.")
    return out / "model"


def start_run(
    recipe: Recipe,
    seed: int,
    out: Path,
    beginning: Beginning | None = None,
    data: str = "",
    resize: int | None = None,
) -> None:
    """Write OUT/run.json, or compare with the one that is there.

    Args:
        recipe: the recipe of the run.
        seed: the seed of the run.
        out: the run's folder.
        beginning: if weights do not begin at random.
        data: the fingerprint of the images and labels.
        resize: what the images are resized to, if they are.

    Raises:
        DiffjaxError: a run is there that has another recipe, seed, number type, data
            or beginning; the message names what differs.
    """
    path = out / "run.json"
    began = beginning and {"model": beginning.name, "weights": beginning.fingerprint}
    header = {
        "seed": seed,
        "init": began,
        "data": data,
        "dtype": compute_dtype(recipe),  # of this machine, where the recipe says auto
        "recipe": asdict(recipe),
        **({} if resize is None else {"resize": resize}),
    }
    ours = json.loads(json_text(header))
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, ours)
        return
    try:
        theirs = read_json(path)
    except DiffjaxError as error:
        raise DiffjaxError(f"{error} Train in another folder.") from error
    differences = _differences(theirs, ours, "")
    if differences:
        raise DiffjaxError(
            f"{out} holds another run (there → now):\n  "
            + "\n  ".join(differences)
            + "\nTrain in another folder."
        )


def _differences(theirs: Any, ours: Any, name: str) -> list[str]:
    if name == "recipe.summary":  # words about it
        return []
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            line
            for key in sorted(theirs.keys() | ours.keys())
            for line in _differences(
                theirs.get(key), ours.get(key), f"{name}.{key}".strip(".")
            )
        ]
    return [] if theirs == ours else [f"{name}: {theirs!r} → {ours!r}"]
