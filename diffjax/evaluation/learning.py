"""Noises of learned samples improved by gradient, on a few images of a run.

The samples are those that ``runs.learning`` has chosen; their timesteps stay. Images of
the run are dealt, class by class, into those that are learned from and as many that say
when to stop. See ``scoring.tuning`` for what is minimised.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.samples import LearnedSamples, file_digest, write_samples
from diffjax.errors import DiffjaxError
from diffjax.evaluation.experiment import Experiment
from diffjax.evaluation.latents import Latents
from diffjax.evaluation.runner import encoded
from diffjax.evaluation.task import Task
from diffjax.files import atomic
from diffjax.models.conditions import take
from diffjax.runs.metrics import wilson
from diffjax.runs.run import Run
from diffjax.scoring.placement import cells_that_fit
from diffjax.scoring.tuning import Fixed, Lessons, Tuned, judge, tune
from diffjax.scoring.tuning import Step as Step
from diffjax.tracing import pinned

KEPT = ("loss", "space", "resolution", "transform", "interpolation", "sizes", "merge")
BACKWARD = 4  # times the memory of a forward pass, about


@dataclass(frozen=True, kw_only=True)
class Course:
    """How noises are improved.

    Attributes:
        per_class: images of each class to learn from, and as many that are held out.
        steps: at most.
        batch: images a step.
        rate: of Adam.
        every: steps between looks at the images held out.
        patience: looks without a better one, after which it ends.
        rivals: classes besides the label that a step goes back through.
    """

    per_class: int = 8
    steps: int = 200
    batch: int = 8
    rate: float = 0.03
    every: int = 20
    patience: int = 3
    rivals: int = 3


def settings_of(run: Run, model: str | None = None) -> dict[str, Any]:
    """Keyword arguments for the classifier of a run; its model where none is named."""
    experiment = run.header["experiment"]
    told = {name: experiment.get(name) for name in KEPT}
    return {"name_or_path": model or run.header["model"]["model"], **told}


def task_of(run: Run, data_dir: str | Path | None) -> Task:
    """The images and classes of a run.

    Raises:
        DiffjaxError: if they are not there, or have become others.
    """
    asked = run.header["experiment"]
    given = {f.name: asked[f.name] for f in fields(Experiment) if f.name in asked}
    given["template"] = tuple(given.get("template") or ())
    task = Experiment(**given).task(data_dir, run=run.path)
    there, here = run.header["data"], task.describe()
    for name in ("fingerprint", "indices"):
        if there.get(name) != here[name]:
            raise DiffjaxError(
                f"{run.path}: the images of {there['name']} are not those of the run "
                f"({name} {there.get(name)} there, {here[name]} here). Name the folder "
                "of its data by --data-dir."
            )
    return task


@pinned()
def improve(
    samples: LearnedSamples,
    run: Run,
    task: Task,
    classifier: DiffusionClassifier,
    course: Course,
    *,
    classes: Sequence[int] | None = None,
    watch: Callable[[Step], None] = lambda step: None,
) -> tuple[LearnedSamples, Float[np.ndarray, "K h w c"]]:
    """The samples with noises of their own, and these noises.

    Args:
        samples: to begin with, of shared noise.
        run: that they were learned on.
        task: the run's images and classes.
        classifier: the run's model, by its settings.
        course: how.
        classes: local classes to learn from; None for all.
        watch: is told of each look at the images held out.

    Raises:
        DiffjaxError: if the model is another, classes have several prompts, or there
            are too few images of a class.
    """
    resolution = classifier.resolution
    model = classifier.model
    T = model.schedule.n_timesteps
    samples.check(model.name, model.fingerprint, resolution, T)
    candidates = task.candidates(classifier)
    if candidates.prompts != run.prompts:
        raise DiffjaxError(f"{run.path}: the prompts of its classes have changed.")
    C = len(run.classes)
    if len(run.prompts.classidx) != C:
        raise DiffjaxError(
            f"{run.path} has several prompts a class; noises are learned for one, as "
            "--template gives."
        )
    chosen = np.arange(C) if classes is None else np.asarray(classes)
    rows = np.argsort(run.prompts.classidx)[chosen]
    taught, held = (
        _lessons(task, classifier, places, chosen)
        for places in _dealt(run, chosen, course.per_class)
    )
    draw, shape = classifier.grid.noise.draw, classifier.latent_shape
    noise = [draw(0, k, shape) for k in samples.noises]
    weights = np.array(samples.weights)
    fixed = Fixed(
        denoiser=classifier.grid.denoiser,
        schedule=classifier.grid.schedule,
        conditions=take(candidates.conditions, rows),
        timesteps=np.array(samples.timesteps, np.int32),
    )
    # scores are a softmax of Σ w e / (K τ)
    scales = np.log(weights / (len(samples) * samples.temperature))
    needs = classifier.model.denoiser.module().memory(*classifier.latent_shape[:2])
    cells = cells_that_fit(needs, classifier.grid.mesh) // BACKWARD
    at_once = max(1, min(course.batch, cells // (len(chosen) * len(samples))))
    tuned = tune(
        Tuned(noises=jnp.stack(noise), scales=jnp.asarray(scales, jnp.float32)),
        fixed,
        taught,
        held,
        steps=course.steps,
        batch=course.batch,
        rate=course.rate,
        every=course.every,
        patience=course.patience,
        rivals=min(course.rivals, len(chosen) - 1),
        loss=samples.loss,
        at_once=at_once,
        watch=watch,
    )
    n = len(held.labels)
    _, right = judge(tuned, fixed, held, loss=samples.loss, at_once=at_once)
    weights = np.exp(np.asarray(tuned.scales, np.float64))
    order = np.argsort(-weights, kind="stable")
    learned = replace(
        samples,
        timesteps=tuple(np.array(samples.timesteps)[order].tolist()),
        noises=tuple(range(len(order))),
        weights=tuple((weights / weights.mean())[order].tolist()),
        noise="",
        temperature=float(1 / weights.sum()),
        learned_on=dict(samples.learned_on) | {"noises_by": len(taught.labels) + n},
        accuracy={
            "held_out": right / n,
            "interval": list(wilson(right, n)),
            "images": n,
        },
    )
    return learned, np.asarray(tuned.noises, np.float32)[order]


def write_noises(
    path: Path, samples: LearnedSamples, noises: Float[np.ndarray, "K h w c"]
) -> LearnedSamples:
    """Write samples, and their noises to PATH.safetensors beside; return the former."""
    from safetensors.numpy import save

    place = path.with_suffix(".safetensors")
    with atomic(place) as partial:
        partial.write_bytes(save({"noises": np.ascontiguousarray(noises)}))
    digest = f"sha256 {file_digest(place)}"
    samples = replace(samples, noise=digest, noise_file=str(place))
    write_samples(path, samples)
    return samples


def _dealt(
    run: Run, classes: Int[np.ndarray, " c"], per_class: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Places in the data set of images to learn from, and of those held out."""
    rows = run.good.select(["index", "label"]).to_pydict()
    index, label = np.array(rows["index"]), np.array(rows["label"])
    draw = np.random.default_rng(0)
    taught, held = [], []
    for c in classes:
        mine = draw.permutation(index[label == run.classes[c]])
        if len(mine) < 2 * per_class:
            raise DiffjaxError(
                f"{run.path} has {len(mine)} images of class {run.classes[c]}, and "
                f"learning noises takes {2 * per_class}: {per_class} to learn from and "
                "as many to see when to stop. Use --teachers, or more images."
            )
        taught.append(mine[:per_class])
        held.append(mine[per_class : 2 * per_class])
    return np.sort(np.concatenate(taught)), np.sort(np.concatenate(held))


def _lessons(
    task: Task,
    classifier: DiffusionClassifier,
    places: Int[np.ndarray, " n"],
    classes: Int[np.ndarray, " c"],
) -> Lessons:
    local = {task.classes[c]: place for place, c in enumerate(classes)}
    latents, labels = [], []
    told: list[Mapping[str, np.ndarray]] = []
    cache = Latents(classifier, None)
    for row, image in encoded(task, classifier, cache, places.tolist()):
        if isinstance(image, DiffjaxError):
            raise image
        latents.append(image.z0)
        labels.append(local[row["label"]])
        told.append(image.told)
    return Lessons(
        z0=np.stack(latents),
        labels=np.array(labels, np.int32),
        told={name: np.stack([each[name] for each in told]) for name in told[0]},
    )
