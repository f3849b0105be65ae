"""Results of the authors' program for DiT, read into a run.

Facts about their files, from github.com/diffusion-classifier/diffusion-classifier
(eval_prob_dit.py, revision 3cd7f0c1). There is a folder a class and in it, for
ImageNet's relatives in a folder named after the split, a file an image:

    imagenet/DiT256x256_cls{class}_t{interval}_{n}trials[_randnoise][/{split}]/12.pt

A file is one tensor, [T / interval, n], of squared errors at the timesteps
⌊interval / 2⌋, + interval, …; with --save_vb it is [T / interval, n, 4]: squared error,
absolute error, the bound's KL and its discretised NLL, both in bits.

    vlb = KL for t > 0, NLL for t = 0;     l2+vlb = l2 + vlb

With _randnoise the k-th sample used the k-th noise; without, which noise depended on
the batch size, and the number of the trial stands for it. Labels are not stored.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffjax.checkpoints.torch_files import load_torch
from diffjax.data.arrays import read_npy
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.runs.official import (
    N_TIMESTEPS,
    imported_header,
    imported_model,
    numbered_files,
    write_imported,
)
from diffjax.runs.outcomes import decision_columns
from diffjax.runs.rescoring import rank_saved
from diffjax.runs.run import Run
from diffjax.strategies import strategy_to_dict
from diffjax.strategies.base import ErrorTable
from diffjax.strategies.exhaustive import Exhaustive

ALSO = ("l1", "vlb", "l2+vlb")

_FOLDER = re.compile(
    r"DiT(?P<resolution>\d+)x\d+_cls(?P<cls>\d+)_t(?P<interval>\d+)_(?P<trials>\d+)"
    r"trials(?P<random>_randnoise)?(?P<kind>_spatial|_eps|_epsvar)?"
)


def holds_dit(folder: Path) -> bool:
    """Whether a folder is one of the authors' results for DiT."""
    return folder.is_dir() and any(_FOLDER.fullmatch(p.name) for p in folder.iterdir())


def import_dit(
    folder: Path,
    out: Path,
    prompts: Prompts,
    labels: Int[np.ndarray, " N"],
    *,
    dataset: str | None = None,
    split: str = "test",
) -> Run:
    """Read a folder of the authors' results for DiT into a new run.

    Decisions are by l2; where the bound was saved, also by l1, vlb and l2+vlb. An image
    that a class lacks becomes a row with an error.

    Args:
        folder: with a folder a class.
        out: the run's folder.
        prompts: one for each class of the model, in its numbering: their names. Classes
            without a folder are no candidates.
        labels: the class of each image, by its number.
        dataset: what the data set is called; the folder's name, if None.
        split: the split of the data set.

    Raises:
        DiffjaxError: if there are no results, none can be read, they do not belong
            together, or ``out`` holds something else.
    """
    settings, folders = _folders(folder, split)
    if len(prompts.prompts) != len(prompts.class_names):
        raise DiffjaxError(
            "DiT knows classes, not prompts: give a prompts file with one prompt for "
            "each class."
        )
    classes = sorted(folders)
    files = {c: numbered_files(folders[c]) for c in classes}
    numbers = sorted(set().union(*files.values()))
    if not numbers:
        raise DiffjaxError(f"There are no results in {folder}: no files like 12.pt.")
    candidates = prompts.restricted(classes)
    shape = _shape(files[classes[0]].values(), settings)

    def columns(index: int) -> dict[str, Any]:
        absent = [c for c in classes if index not in files[c]]
        if absent:
            raise DiffjaxError(f"Image {index} has no result for class {absent[0]}.")
        if index >= len(labels):
            raise DiffjaxError(f"Image {index} has no label; there are {len(labels)}.")
        if not 0 <= labels[index] < len(prompts.class_names):
            raise DiffjaxError(
                f"Image {index} has the label {labels[index]}, but the prompts number "
                f"the classes 0 to {len(prompts.class_names) - 1}."
            )
        tensors = np.stack([_tensor(files[c][index], shape) for c in classes])
        return {
            "label": int(labels[index]),
            **_decisions(tensors, settings, np.asarray(classes)),
        }

    strategy = Exhaustive(n_samples=shape[0], n_trials=shape[1])
    header = imported_header(
        folder,
        [file for c in classes for file in files[c].values()],
        prompts,
        name=folder.resolve().name if dataset is None else dataset,
        split=split,
        experiment={
            "loss": "l2",
            "also": list(ALSO) if len(shape) > 2 else [],
            "strategy": strategy_to_dict(strategy),
            "resolution": settings["resolution"],
            "noise": "shared",
        },
        model=imported_model(f"dit-{settings['resolution']}", "class"),
        program="eval_prob_dit.py",
    )
    header["classes"] = classes
    header["data"]["n"] = len(numbers)
    ids = {index: f"{index}.pt" for index in numbers}
    return write_imported(out, header, candidates, ids, columns)


def read_labels(path: Path) -> Int[np.ndarray, " N"]:
    """Read the class of each image from an npy file.

    Raises:
        DiffjaxError: if there is none, or it is not a list of whole numbers.
    """
    labels = read_npy(path, "labels file")
    if labels.ndim != 1:
        raise DiffjaxError(f"{path} must hold one array: the class of each image.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DiffjaxError(f"{path} holds {labels.dtype}, not whole numbers.")
    return labels


def _folders(folder: Path, split: str) -> tuple[dict[str, Any], dict[int, Path]]:
    """The settings that all class folders share, and the folders by class."""
    found: dict[int, Path] = {}
    settings: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        match = _FOLDER.fullmatch(path.name)
        if match is None:
            continue
        if match["kind"]:
            raise DiffjaxError(
                f"{path} holds whole predictions or maps of errors, which runs do not "
                "keep. Only errors can be imported."
            )
        names = ("resolution", "interval", "trials")
        own: dict[str, Any] = {name: int(match[name]) for name in names}
        own["random"] = match["random"] is not None
        if own != (settings := settings or own):
            raise DiffjaxError(
                f"{path} was made with other settings than the classes before it. Keep "
                "the results of each experiment in a folder of their own."
            )
        inner = path / split
        found[int(match["cls"])] = inner if inner.is_dir() else path
    if len(found) < 2:
        raise DiffjaxError(
            f"{folder} holds results of {len(found)} classes; deciding takes two."
        )
    if not settings["interval"] or N_TIMESTEPS % settings["interval"]:
        raise DiffjaxError(
            f"{folder}: an interval of {settings['interval']} does not divide the "
            f"{N_TIMESTEPS} timesteps."
        )
    return settings, found


def _shape(files: Iterable[Path], settings: dict[str, Any]) -> tuple[int, ...]:
    """The shape that all results have: that of the first which can be read."""
    plain = (N_TIMESTEPS // settings["interval"], settings["trials"])
    error = ""
    for file in files:
        for shape in (plain, (*plain, 4)):
            try:
                _tensor(file, shape)
                return shape
            except DiffjaxError as problem:
                error = error or str(problem)
    raise DiffjaxError(f"No result of the first class can be read. {error}")


def _tensor(file: Path, shape: tuple[int, ...]) -> Float[np.ndarray, "T n L"]:
    """One image's errors for one class, of one loss or four."""
    content = load_torch(file, instead="Let the authors' program make it again.")
    try:
        errors: np.ndarray = content.numpy()
    except (AttributeError, TypeError, RuntimeError) as error:
        raise DiffjaxError(f"{file} is not a tensor ({error}).") from error
    if errors.shape != shape:
        raise DiffjaxError(f"{file} is a tensor of shape {errors.shape}, not {shape}.")
    if not np.isfinite(errors).all():
        raise DiffjaxError(f"{file} has an error that is not finite.")
    return errors.reshape(*shape[:2], -1).astype(np.float32)


def _decisions(
    tensors: Float[np.ndarray, "C T n L"],
    settings: dict[str, Any],
    classes: Int[np.ndarray, "C"],
) -> dict[str, Any]:
    """What a row says of an image: errors and decisions by each loss."""
    C, n_timesteps, trials, n_losses = tensors.shape
    t = settings["interval"] // 2 + settings["interval"] * np.arange(n_timesteps)
    timesteps = np.repeat(t, trials)
    samples = np.arange(len(timesteps))
    flat = tensors.reshape(C, len(samples), -1)
    tables = {"l2": flat[:, :, 0]}
    if n_losses > 1:
        tables["l1"] = flat[:, :, 1]
        tables["vlb"] = np.where(timesteps == 0, flat[:, :, 3], flat[:, :, 2])
        tables["l2+vlb"] = tables["l2"] + tables["vlb"]
    row: dict[str, Any] = {
        "timesteps": timesteps,
        "noises": samples if settings["random"] else samples % trials,
    }
    local = np.arange(C)
    for loss, errors in tables.items():
        table = ErrorTable(errors)
        decided = decision_columns(table, rank_saved(table), local, classes)
        if loss == "l2":
            row |= decided | {"errors": errors.ravel()}
        else:
            row[f"prediction_{loss}"] = decided["prediction"]
            row[f"errors_{loss}"] = errors.ravel()
    return row
