"""Classes made ready for a model: conditions of prompts, or class ids."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffjax.data.labels import class_ids
from diffjax.data.prompts import DEFAULT_TEMPLATE, Prompts, check_labels
from diffjax.errors import DiffjaxError
from diffjax.models.conditioner import Conditioner
from diffjax.models.conditions import in_dtype
from diffjax.models.diffusion import DiffusionModel
from diffjax.scoring.placement import free_bytes, replicate

SHARE_TO_TELL = 0.1  # of a device's free memory, from which on conditions are told of


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Classes made ready for a model: what the grid needs of them.

    Attributes:
        prompts: The rows, their classes, and the names of the classes.
        conditions: What all P prompts or class ids tell the model: a tree of rows, on
            the devices.
        truncated: The prompts that were too long and have been cut.
        limits: A line about classes that the model never saw; None if it saw all, or
            nobody knows.
    """

    prompts: Prompts
    conditions: Any
    truncated: tuple[str, ...] = ()
    limits: str | None = None


def candidates_of(
    model: DiffusionModel,
    labels: Iterable[Any] | Prompts | None,
    template: str | Sequence[str],
    merge: str,
    mesh: Mesh,
) -> Candidates:
    """Make classes ready for a model of either kind.

    Args:
        model: The model.
        labels: Class names, or whole ``Prompts``; None for all classes of a
            class-conditional model.
        template: A prompt with one {} for the label, or several of them.
        merge: As for ``prompt_candidates``.
        mesh: The devices that the conditions go to.

    Raises:
        DiffjaxError: If the labels make no sense or the model lacks them.
    """
    if model.kind == "class":
        if isinstance(labels, Prompts) or template != DEFAULT_TEMPLATE:
            warnings.warn(
                f"{model.name} knows classes by id: prompts are not used.",
                stacklevel=3,
            )
        if isinstance(labels, Prompts):
            labels = labels.class_names
        return named_candidates(model, labels, mesh)
    if labels is None:
        raise DiffjaxError(
            f"{model.name} needs labels to choose from, as in --labels cat,dog, or in "
            'Python ["cat", "dog"].'
        )
    if not isinstance(labels, Prompts):
        labels = Prompts.from_labels(labels, template)
    return prompt_candidates(model, labels, merge, mesh)


def prompt_candidates(
    model: DiffusionModel, prompts: Prompts, merge: str, mesh: Mesh
) -> Candidates:
    """Encode prompts for a text model.

    Args:
        model: A model of kind "text".
        prompts: The prompts of the classes.
        merge: "compete" for a row for each prompt, or "mean" for one row for each
            class: the mean of its conditions.
        mesh: The devices that the conditions go to.

    Raises:
        DiffjaxError: If the model takes no prompts, or a device's memory does not hold
            their conditions, or prompts of a class cannot be averaged.
    """
    conditioner, mean = model.text_conditioner, merge == "mean"
    rows = len(prompts.class_names if mean else prompts.prompts)
    summed = in_dtype(
        conditioner.shapes(), np.float32 if mean else model.denoiser.dtype
    )
    _check_memory(rows, summed, mesh)
    conditions, truncated = conditioner.encode(
        prompts.prompts,
        np.asarray(prompts.classidx) if mean else None,
        model.denoiser.dtype,  # to which the denoiser would round them
    )
    limits = tell_of_prompts(
        model, prompts.class_names, len(prompts.prompts), truncated
    )
    _tell_of_same_tokens(model.name, conditioner, prompts)
    return Candidates(
        prompts=_merged(prompts) if mean else prompts,
        conditions=replicate(conditions, mesh),
        truncated=truncated,
        limits=limits,
    )


def class_candidates(
    model: DiffusionModel,
    ids: Sequence[Sequence[int]],
    names: Sequence[str],
    mesh: Mesh,
) -> Candidates:
    """Make classes of a class-conditional model ready, by number.

    Args:
        model: A model of kind "class".
        ids: For each class the class ids of the model that stand for it; the best one
            represents it.
        names: The names of the classes.
        mesh: The devices that the conditions go to.

    Raises:
        DiffjaxError: If the model has no such ids.
    """
    n = model.n_classes
    if n is None:
        raise DiffjaxError(f"{model.name} knows classes by prompts, not by number.")
    rows = [(i, c) for c, group in enumerate(ids) for i in group]
    if wrong := [i for i, _ in rows if not 0 <= i < n]:
        raise DiffjaxError(
            f"{model.name} has the classes 0 to {n - 1}, not {wrong[0]}."
        )
    known = model.class_names or tuple(map(str, range(n)))
    alone = all(len(group) == 1 for group in ids)
    numbers: Any = np.array([i for i, _ in rows], np.int32)
    return Candidates(
        prompts=Prompts(
            prompts=tuple(names) if alone else tuple(known[i] for i, _ in rows),
            classidx=tuple(c for _, c in rows),
            class_names=tuple(names),
        ),
        conditions=replicate(numbers, mesh),
    )


def named_candidates(
    model: DiffusionModel, labels: Iterable[Any] | None, mesh: Mesh
) -> Candidates:
    """Make classes of a class-conditional model ready, by name; None is all of them.

    Raises:
        DiffjaxError: If the model lacks a class, or the labels make no sense.
    """
    assert model.n_classes is not None  # of every class-conditional model
    if labels is None:
        names = model.class_names or tuple(map(str, range(model.n_classes)))
        return class_candidates(model, [(i,) for i in range(len(names))], names, mesh)
    labels = check_labels(labels)
    advice = "" if model.limits is None else model.limits.advice(model.name)
    ids = class_ids(labels, model.class_names, model.n_classes, advice)
    return class_candidates(model, [(i,) for i in ids], labels, mesh)


def tell_of_prompts(
    model: DiffusionModel, names: Sequence[str], n: int, truncated: Sequence[str]
) -> str | None:
    """Tell of prompts that were cut, and of classes that the model never saw.

    Args:
        model: the model.
        names: of the classes.
        n: the number of prompts.
        truncated: those that were cut.

    Returns:
        The line about the classes, if there is one.
    """
    if truncated:
        warnings.warn(
            f"{len(truncated)} of {n} prompts are too long for "
            f"{model.name} and were cut at its last token: "
            f"{', '.join(map(_shortened, truncated[:3]))}.",
            stacklevel=4,
        )
    limits = None if model.limits is None else model.limits.warning(model.name, names)
    if limits is not None:
        warnings.warn(limits, stacklevel=5)
    return limits


def _check_memory(rows: int, condition: Any, mesh: Mesh) -> None:
    """Tell of conditions that take much memory, before hours are spent on them."""
    leaves = jax.tree.leaves(condition)
    needed = rows * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    free = free_bytes(mesh.local_devices[0])
    if needed < SHARE_TO_TELL * free:
        return
    what = (
        f"the conditions of {rows:,} prompts take {needed / 1e9:,.1f} GB of the "
        f"{free / 1e9:,.1f} GB that are free on a device"
    )
    if needed > free:
        raise DiffjaxError(
            f"{what[0].upper()}{what[1:]}: choose among fewer classes, average the "
            "prompts of each (merge), or compute in bfloat16."
        )
    warnings.warn(f"{what}.", stacklevel=4)


def _tell_of_same_tokens(name: str, conditioner: Conditioner, prompts: Prompts) -> None:
    """Tell of classes whose prompts differ in a way that the model does not read."""
    first: dict[bytes, int] = {}
    for p, ids in enumerate(conditioner.tokenize(prompts.prompts).ids):
        q = first.setdefault(ids.tobytes(), p)
        if prompts.classidx[p] != prompts.classidx[q]:
            a, b = prompts.prompts[q], prompts.prompts[p]
            if a != b:  # of the others readers have told
                warnings.warn(
                    f"{_shortened(a)} and {_shortened(b)} are the same tokens to "
                    f"{name} (capitals, for one, may not count): their classes "
                    "cannot be told apart.",
                    stacklevel=4,
                )
                return


def _shortened(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else text[: most - 1] + "…")


def _merged(prompts: Prompts) -> Prompts:
    """One row a class, named by all its prompts."""
    texts: list[list[str]] = [[] for _ in prompts.class_names]
    for text, c in zip(prompts.prompts, prompts.classidx, strict=True):
        texts[c].append(text)
    return Prompts(
        prompts=tuple(map(" | ".join, texts)),
        classidx=tuple(range(len(texts))),
        class_names=prompts.class_names,
    )
