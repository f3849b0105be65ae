"""Results of the authors' program, read into a run.

Facts about their files, from github.com/diffusion-classifier/diffusion-classifier
(eval_prob_adaptive.py, revision a544da9). An image is a file whose name is its number,
0012.pt, in a folder whose name tells the settings:

    cifar10/v2-0_1trials_5_1keep_50_500samples_l1
    DATASET[_EXTRA]/v{version}_{n}trials_{to_keep}keep_{n_samples}samples
                   [_{interpolation}][_{loss}][_{resolution}]

    "errors"  {prompt: {"t": timesteps, "pred_errors": errors}}, in the order of their
              evaluation; a pruned prompt's are the first of those of the winner
    "pred"    the class of the winning prompt
    "label"   the class of the image

The k-th sample of an image used its k-th noise. Split, prompts and seconds are not
stored.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffjax.checkpoints.torch_files import load_torch
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.runs.folder import (
    open_run,
    read_run,
    write_summary,
)
from diffjax.runs.header import FORMAT
from diffjax.runs.metrics import summary
from diffjax.runs.outcomes import decision_columns
from diffjax.runs.rescoring import rank_saved
from diffjax.runs.run import Run
from diffjax.strategies import strategy_to_dict
from diffjax.strategies.base import Decision, ErrorTable
from diffjax.strategies.staged import Staged

N_TIMESTEPS = 1000
FLUSH_EVERY = 500  # images
# Means that differ by less are a tie in the float32 of the authors' program.
TIE = 1e-6

_FOLDER = re.compile(
    r"v(?P<version>[\d-]+)_(?P<trials>\d+)trials_(?P<keep>[\d_]+)keep_"
    r"(?P<samples>[\d_]+)samples(?:_(?P<interpolation>bilinear|lanczos))?"
    r"(?:_(?P<loss>l1|huber))?(?:_(?P<resolution>\d+))?"
)
# their --version: the same weights here
_MODELS = {
    "1-4": "sd-1.4",
    "1-5": "sd-1.5",
    "2-0": "sd-2-base",
    "2-1": "sd-2.1-base",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """One image's file.

    Attributes:
        timesteps: of the S samples in the order of their evaluation.
        errors: of each prompt, NaN where not evaluated.
        prediction: a class.
        label: a class.
    """

    timesteps: Int[np.ndarray, " S"]
    errors: Float[np.ndarray, "P S"]
    prediction: int
    label: int


def import_results(
    folder: Path,
    out: Path,
    prompts: Prompts,
    *,
    dataset: str | None = None,
    split: str = "test",
) -> Run:
    """Read a folder of the authors' results into a new run.

    Files that cannot be read become rows with an error, as images do that fail.

    Args:
        folder: with a file an image; its own name must be as the program chose it.
        out: the run's folder.
        prompts: that the program was given.
        dataset: what the data set is called; the name of the parent folder, if None.
        split: the split of the data set.

    Raises:
        DiffjaxError: if there are no results, none can be read, the folder's name
            does not tell the settings, or ``out`` holds something else.
    """
    files = _files(folder)
    experiment, model = settings_of(folder.resolve().name)
    header = imported_header(
        folder,
        files.values(),
        prompts,
        name=folder.resolve().parent.name if dataset is None else dataset,
        split=split,
        experiment=experiment,
        model=model,
        program="eval_prob_adaptive.py",
    )
    ids = {i: file.name for i, file in files.items()}
    return write_imported(
        out, header, prompts, ids, lambda i: _columns(files[i], prompts)
    )


def imported_header(
    folder: Path,
    files: Iterable[Path],
    prompts: Prompts,
    *,
    name: str,
    split: str,
    experiment: dict[str, Any],
    model: dict[str, Any],
    program: str,
) -> dict[str, Any]:
    """The header of a run that was read from ``files``; all classes are candidates."""
    sizes = [f"{file.name} {file.stat().st_size}" for file in files]
    return {
        "format": FORMAT,
        "experiment": {"dataset": name, "split": split, **experiment},
        "model": model,
        "data": {
            "name": name,
            "split": split,
            "fingerprint": hashlib.sha256("\n".join(sizes).encode()).hexdigest()[:16],
            "n": len(sizes),
        },
        "class_names": list(prompts.class_names),
        "classes": list(range(len(prompts.class_names))),
        "environment": {"program": f"diffusion-classifier/{program}"},
        "imported_from": str(folder),
    }


def write_imported(
    out: Path,
    header: Mapping[str, Any],
    prompts: Prompts,
    ids: Mapping[int, str],
    columns: Callable[[int], dict[str, Any]],
) -> Run:
    """Write a run of images that ``columns`` reads, or reports as broken.

    Args:
        out: the run's folder.
        header: the header of the run.
        prompts: rows of the error tables.
        ids: of the images, by number.
        columns: label, decision and errors of an image, by number.

    Raises:
        DiffjaxError: if no image can be read; nothing is written then.
    """
    _check(ids, columns)
    with open_run(out, header, prompts, save_errors=True) as writer:
        for n, (index, name) in enumerate(ids.items(), 1):
            if index in writer.done:
                continue
            row: dict[str, Any] = {"index": index, "id": name}
            try:
                row |= columns(index)
            except DiffjaxError as error:
                row["error"] = str(error)
            writer.add(row)
            if n % FLUSH_EVERY == 0:
                writer.flush()
    run = read_run(out)
    write_summary(out, summary(run))
    return run


def _check(ids: Iterable[int], columns: Callable[[int], dict[str, Any]]) -> None:
    """Raise DiffjaxError unless an image can be read."""
    errors = []
    for index in ids:
        try:
            columns(index)
            return
        except DiffjaxError as error:
            errors.append(str(error))
    raise DiffjaxError(
        f"None of the {len(errors)} results can be read. The first: {errors[0]}"
    )


def settings_of(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A header's "experiment" and "model" from the name of a folder of results.

    Raises:
        DiffjaxError: if the name is not one that the authors' program gives.
    """
    found = _FOLDER.fullmatch(name)
    if found is None:
        raise DiffjaxError(
            f"The folder's name {name!r} does not tell how the results were made. Give "
            "it the name that the authors' program chose, as in "
            "v2-0_1trials_5_1keep_50_500samples_l1."
        )
    keep, samples = (
        tuple(int(part) for part in found[key].split("_"))
        for key in ("keep", "samples")
    )
    strategy = Staged(to_keep=keep, n_samples=samples, n_trials=int(found["trials"]))
    version = found["version"]
    experiment = {
        "loss": found["loss"] or "l2",
        "strategy": strategy_to_dict(strategy),
        "interpolation": found["interpolation"] or "bicubic",
        "resolution": int(found["resolution"] or 512),
        "noise": "unknown",
    }
    name = _MODELS.get(version, f"sd-{version}")
    return experiment, imported_model(name, "text")


def imported_model(name: str, kind: str) -> dict[str, Any]:
    """A header's "model": what is known of one that was never here."""
    unknown = {"fingerprint": "unknown", "n_timesteps": N_TIMESTEPS}
    return {"name": name, "kind": kind, **unknown}


def read_result(file: Path, n_prompts: int) -> Result:
    """Read one image's file.

    Raises:
        DiffjaxError: if it is not as the authors' program writes it, or for another
            number of prompts.
    """
    content = load_torch(file, instead="Let the authors' program make it again.")
    try:
        table, prediction = content["errors"], int(content["pred"])
        label = int(content["label"])
        rows = {
            int(prompt): (entry["t"].numpy(), entry["pred_errors"].numpy())
            for prompt, entry in table.items()
        }
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise DiffjaxError(
            f"{file} is not a result of the authors' program ({error!r})."
        ) from error
    if sorted(rows) != list(range(n_prompts)):
        raise DiffjaxError(
            f"{file} has errors of {len(rows)} prompts, but {n_prompts} were given. "
            "Give the prompts file of that run."
        )
    timesteps = max((t for t, _ in rows.values()), key=len)
    errors = np.full((n_prompts, len(timesteps)), np.nan, np.float32)
    for prompt, (t, values) in rows.items():
        n = len(t)
        if values.shape != (n,) or not np.array_equal(t, timesteps[:n]):
            raise DiffjaxError(
                f"{file}: prompt {prompt} has other timesteps than the winner's first."
            )
        if not np.isfinite(values).all():
            raise DiffjaxError(
                f"{file}: prompt {prompt} has an error that is not finite."
            )
        errors[prompt, :n] = values
    if not len(timesteps) or timesteps.min() < 0 or timesteps.max() >= N_TIMESTEPS:
        raise DiffjaxError(
            f"{file} has no timesteps, or others than 0 to {N_TIMESTEPS - 1}."
        )
    return Result(
        timesteps=timesteps.astype(np.int64),
        errors=errors,
        prediction=prediction,
        label=label,
    )


def _columns(file: Path, prompts: Prompts) -> dict[str, Any]:
    """What a row says of an image's file."""
    result = read_result(file, len(prompts.prompts))
    C = len(prompts.class_names)
    if not 0 <= result.label < C:
        raise DiffjaxError(
            f"{file} has the label {result.label}, but the prompts number the classes "
            f"0 to {C - 1}. Give the prompts file of that run."
        )
    classidx = np.asarray(prompts.classidx)
    table = ErrorTable(result.errors)
    decision = _with_winner(rank_saved(table), classidx, result, file)
    samples = np.arange(len(result.timesteps))
    return {
        "label": result.label,
        "timesteps": result.timesteps,
        "noises": samples,
        "errors": result.errors.ravel(),
        **decision_columns(table, decision, classidx, np.arange(C)),
    }


def _with_winner(
    decision: Decision, classidx: Int[np.ndarray, "P"], result: Result, file: Path
) -> Decision:
    """The decision that the errors allow and the file states."""
    ranking = decision.ranking
    if classidx[ranking[0]] == result.prediction:
        return decision
    # Ours is a mean in float64: where theirs was a tie, the file decides.
    mean = decision.mean_error
    tie = ~decision.pruned & (mean - mean[ranking[0]] <= TIE * mean)
    places = np.flatnonzero((tie & (classidx == result.prediction))[ranking])
    if len(places):
        first, others = ranking[places[:1]], np.delete(ranking, places[0])
        return replace(decision, ranking=np.concatenate([first, others]))
    raise DiffjaxError(
        f"{file} predicts the class {result.prediction}, but the prompt with the "
        f"smallest error is of class {classidx[ranking[0]]}. Give the prompts file of "
        "that run."
    )


def _files(folder: Path) -> dict[int, Path]:
    """The files of images, by number."""
    if not folder.is_dir():
        raise DiffjaxError(f"{folder} is not a folder.")
    files = numbered_files(folder)
    if not files:
        raise DiffjaxError(
            f"{folder} holds no results of the authors' program: there are no files "
            "like 0012.pt in it."
        )
    return files


def numbered_files(folder: Path) -> dict[int, Path]:
    """The files whose names are numbers, in order."""
    files = [file for file in folder.glob("*.pt") if file.stem.isdecimal()]
    return {int(file.stem): file for file in sorted(files, key=lambda f: int(f.stem))}
