"""Heads trained on features, each layer and timestep a number, and the best one a run.

    training images → features → heads, chosen by training images that are held out
    test images     → features → how many of them each head decides rightly

Whatever is chosen, among heads, layers and timesteps, is chosen by images held out of
the training; test images are looked at once. What is found so is not zero-shot.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from diffjax.baselines.feature_heads import Trained, train_head
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.data.prompts import Prompts
from diffjax.data.sources import digest
from diffjax.errors import DiffjaxError
from diffjax.evaluation.baselines import decision
from diffjax.evaluation.features import Cell, KeptMaps, Wanted
from diffjax.evaluation.provenance import settings_of, where_from
from diffjax.evaluation.task import Task
from diffjax.files import json_text
from diffjax.runs.folder import open_run, read_run, write_summary
from diffjax.runs.header import FORMAT
from diffjax.runs.metrics import summary, wilson
from diffjax.runs.outcomes import check_results
from diffjax.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class Course:
    """How heads are trained.

    Attributes:
        kinds: keys of ``baselines.feature_heads.COURSES``.
        seed: of what is random in it.
        held: share of the training images that choose.
        epochs: other than a kind's own; None for these.
    """

    kinds: tuple[str, ...]
    seed: int = 0
    held: float = 0.1
    epochs: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a head does.

    Attributes:
        cell: layer and timestep.
        head: the head.
        odds: log p(class) of the test images.
        right: which of them it decides rightly.
    """

    cell: Cell
    head: Trained
    odds: Float[np.ndarray, "n C"]
    right: Bool[np.ndarray, " n"]

    def row(self) -> dict[str, Any]:
        """As a table has it; proportions in [0, 1]."""
        head, (layer, t) = self.head, self.cell
        k, n = int(self.right.sum()), len(self.right)
        return {
            "layer": layer,
            "timestep": t,
            "head": head.kind,
            "accuracy": k / n,
            "interval": wilson(k, n),
            "images": n,
            "held_out_accuracy": head.right / head.held,
            "held_out_nll": head.surprise,
            "held_out": head.held,
            "learned": head.learned,
            "weight_decay": head.decay,
            "epoch": head.epoch,
        }


def check_tasks(train: Task, test: Task) -> None:
    """Raise a DiffjaxError unless sets have the same classes and no common image."""
    names = [tuple(each.source.class_names) for each in (train, test)]
    if names[0] != names[1] or train.classes != test.classes:
        raise DiffjaxError(
            f"The classes of {train.source.name} {train.source.split}, to learn from, "
            f"are not those of {test.source.name} {test.source.split}."
        )
    here, there = test.source, train.source
    sets = {each.name.partition(" ")[0] for each in (here, there)}  # also made worse
    both = np.intersect1d(train.indices, test.indices)
    if len(sets) == 1 and here.split == there.split and len(both):
        raise DiffjaxError(
            f"{len(both):,} images of {here.name} {here.split} would be learned from "
            "and tested on. Name another split by --train-split, another set by "
            "--train-dataset, or images by --subset and --train-subset."
        )


def labels_of(task: Task) -> Int[np.ndarray, " n"]:
    """The local class of each image of a task."""
    labels = np.asarray(task.source.labels())[task.indices]
    place = np.searchsorted(task.classes, labels).clip(0, len(task.classes) - 1)
    if (np.asarray(task.classes)[place] != labels).any():
        raise DiffjaxError(
            f"Some images of {task.source.name} {task.source.split} are of none of the "
            "classes."
        )
    local: np.ndarray = place
    return local


def train_heads(
    train: Task,
    test: Task,
    learned: Mapping[Cell, KeptMaps],
    tested: Mapping[Cell, KeptMaps],
    course: Course,
    watch: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """A head of each kind on each layer and timestep.

    Args:
        train: images to learn from.
        test: others, of the same classes.
        learned: features of the former.
        tested: features of the latter.
        course: how.
        watch: is told of each head.
    """
    there, here = labels_of(train), labels_of(test)
    outcomes = []
    for cell in learned:
        for kind in course.kinds:
            head = train_head(
                kind,
                learned[cell],
                there,
                len(train.classes),
                seed=course.seed,
                share=course.held,
                epochs=course.epochs,
            )
            odds = head.log_probabilities(tested[cell])
            right = odds.argmax(axis=1) == here
            outcomes.append(Outcome(cell=cell, head=head, odds=odds, right=right))
            watch(outcomes[-1])
    return outcomes


def chosen(outcomes: Sequence[Outcome]) -> Outcome:
    """The one that does best on the images held out, whatever the test says."""
    return min(outcomes, key=lambda each: (-each.head.right, each.head.surprise))


def zero_shot(run: Run, test: Task) -> dict[str, Any]:
    """The accuracy of a finished run, on the test images where it has them all.

    Raises:
        DiffjaxError: if it is of other data, or is not zero-shot.
    """
    data, kind = run.header["data"], run.header["model"].get("kind")
    if seen := run.summary.get("few_shot"):
        raise DiffjaxError(f"{run.path} is {seen}, and not zero-shot.")
    if kind not in ("text", "class"):
        raise DiffjaxError(
            f"{run.path} is of {run.header['model']['name']}, a model of the kind "
            f"{kind!r}; what stands beside features is a diffusion classifier's run."
        )
    check_results(run)
    here = test.describe()
    if any(data.get(k) != here[k] for k in ("fingerprint", "split")):
        raise DiffjaxError(
            f"{run.path} is of {data['name']} {data.get('split')}, not of the images "
            f"of {here['name']} {here['split']} that are tested here."
        )
    good = run.good
    index = np.asarray(good["index"])
    right = np.asarray(good["label"]) == np.asarray(good["prediction"])
    same = np.isin(index, test.indices)
    paired = int(same.sum()) == len(test.indices)
    right = right[same] if paired else right
    return {
        "run": str(run.path),
        "model": run.header["model"]["name"],
        "accuracy": float(right.mean()),
        "interval": wilson(int(right.sum()), len(right)),
        "images": len(right),
        "same_images": paired,
    }


def write_run(
    path: Path,
    outcome: Outcome,
    train: Task,
    test: Task,
    classifier: DiffusionClassifier,
    asked: Mapping[str, Any],
    wanted: Wanted,
    course: Course,
) -> Path:
    """Write what a head decides as a run, which reports compare with others.

    Returns:
        Its folder in ``path``, named by layer, timestep, head, and a digest.
    """
    header = _header(outcome, train, test, classifier, asked, wanted, course)
    layer, t = outcome.cell
    mark = digest([json_text(header["experiment"], indent=None)])[:6]
    folder = path / f"{layer}-t{t}-{outcome.head.kind}-{mark}"
    names = tuple(test.class_names[c] for c in test.classes)
    numbers = tuple(range(len(names)))
    prompts = Prompts(prompts=names, classidx=numbers, class_names=names)
    with open_run(folder, header, prompts, save_errors=False) as run:
        for index, odds in zip(test.indices, outcome.odds, strict=True):
            if int(index) in run.done:
                continue
            example = test.source[int(index)]
            run.add(
                {
                    "index": int(index),
                    "id": example.id,
                    "label": example.label,
                    "error": None,
                    "seconds": None,
                    **decision(odds, np.asarray(test.classes)),
                }
            )
        run.flush()
    write_summary(folder, summary(read_run(folder, errors=False)))
    return folder


def report(
    outcomes: Sequence[Outcome],
    best: Outcome,
    train: Task,
    test: Task,
    classifier: DiffusionClassifier,
    zero_shot: Mapping[str, Any] | None,
    run: Path,
) -> dict[str, Any]:
    """All that was found, as JSON has it."""
    return {
        "task": "trained_classification",
        "zero_shot": False,
        "labels_seen": f"of {len(train.indices):,} images of {train.source.name} "
        f"{train.source.split}",
        "model": classifier.model.name,
        "pretrained": classifier.model.fingerprint,
        "learned_on": train.describe(),
        "tested_on": test.describe(),
        "seed": classifier.settings.seed,
        "rows": [each.row() for each in outcomes],
        "chosen": best.row(),
        "beside": zero_shot,
        "run": str(run),
    }


def _header(
    outcome: Outcome,
    train: Task,
    test: Task,
    classifier: DiffusionClassifier,
    asked: Mapping[str, Any],
    wanted: Wanted,
    course: Course,
) -> dict[str, Any]:
    head, (layer, t) = outcome.head, outcome.cell
    settings = settings_of(classifier)
    data = train.describe()
    return {
        "format": FORMAT,
        "experiment": {
            **asked,
            **{
                name: settings.get(name)
                for name in (
                    "resolution",
                    "transform",
                    "interpolation",
                    "noise",
                    "seed",
                )
            },
            "loss": None,
            "strategy": None,
            "temperature": 1.0,
            "trained": {
                "head": head.kind,
                "layer": layer,
                "timestep": t,
                "places": wanted.places,
                "seed": course.seed,
                "held_out": head.held,
                "weight_decay": head.decay,
                "epoch": head.epoch,
                "of": [list(cell) for cell in wanted.cells],
                "kinds": list(course.kinds),
                "images": head.learned,
                "data": " ".join(filter(None, (data["name"], data.get("split")))),
                "data_fingerprint": data["fingerprint"],
                "indices": data["indices"],
            },
        },
        "data": test.describe(),
        "class_names": list(test.class_names),
        "classes": list(test.classes),
        **where_from(classifier, ["no class"]),
    }
