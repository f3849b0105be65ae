"""What is drawn: classes with a name each, and what tells a model of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from diffjax.classify.candidates import tell_of_prompts
from diffjax.data.classes import read_classes
from diffjax.data.labels import class_ids
from diffjax.data.presets import classes_file, find_preset, prompts_file
from diffjax.data.prompts import (
    DEFAULT_TEMPLATE,
    Prompts,
    check_labels,
    repeated_in,
    split_template,
)
from diffjax.errors import DiffjaxError
from diffjax.evaluation.experiment import package_file
from diffjax.models.diffusion import DiffusionModel


@dataclass(frozen=True, kw_only=True)
class Subjects:
    """Classes to draw.

    Attributes:
        names: of the classes, all different.
        prompts: of each class, or its name where the model takes class ids; image k of
            a class has prompt k of its n, modulo n.
        ids: of each class, where the model takes those.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    ids: tuple[int, ...] | None = None

    def prompt(self, label: int, number: int) -> str:
        """What an image shows."""
        return self.prompts[label][number % len(self.prompts[label])]

    def row(self, label: int, number: int) -> int:
        """The place of its prompt among all, and so the row of its condition."""
        return self._before[label] + number % len(self.prompts[label])

    @cached_property
    def _before(self) -> list[int]:
        return [0, *accumulate(map(len, self.prompts))]

    @property
    def rows(self) -> tuple[str, ...]:
        """All prompts, class by class."""
        return tuple(prompt for prompts in self.prompts for prompt in prompts)

    def conditions(self, model: DiffusionModel) -> Any:
        """What the model is told of each row, a tree of rows."""
        if self.ids is not None:
            return np.array(self.ids, np.int32)
        conditioner = model.text_conditioner
        rows, cut = conditioner.encode(self.rows, None, model.denoiser.dtype)
        tell_of_prompts(model, self.names, len(self.rows), cut)
        return rows


def asked_prompts(preset: str | None, prompts: str | None) -> Prompts | None:
    """The prompts of a preset, with its classes, or of a file; None without either.

    Args:
        preset: its name.
        prompts: a CSV file, or a prompt file of the package.

    Raises:
        DiffjaxError: if there are none of that name, or both are given.
    """
    if preset is not None and prompts is not None:
        raise DiffjaxError("A preset has prompts: give PRESET or --prompts.")
    if preset is not None:
        known = find_preset(preset)
        found = Prompts.read_csv(prompts_file(known.prompts))
        if known.classes is None:
            return found
        file = classes_file(known.classes)
        return found.restricted(read_classes(file, len(found.class_names)))
    if prompts is None:
        return None
    return Prompts.read_csv(package_file(prompts, ".csv"))


def subjects_of(
    model: DiffusionModel,
    labels: Iterable[str] | Prompts | None,
    templates: str | Sequence[str] = DEFAULT_TEMPLATE,
) -> Subjects:
    """What is asked for, as a model of either kind knows it.

    Args:
        model: the model.
        labels: names of classes, one at least, or whole ``Prompts``; None for all
            classes of a class-conditional model.
        templates: prompts with one {} for the label each.

    Raises:
        DiffjaxError: if the labels or templates make no sense, or the model lacks one.
    """
    if model.kind == "class":
        names = labels.class_names if isinstance(labels, Prompts) else labels
        return _of_ids(model, names)
    if labels is None:
        raise DiffjaxError(
            f"{model.name} draws what prompts say: name a preset, or give labels, as "
            "in --labels cat,dog."
        )
    if isinstance(labels, Prompts):
        prompts: list[list[str]] = [[] for _ in labels.class_names]
        for text, c in zip(labels.prompts, labels.classidx, strict=True):
            prompts[c].append(text)
        names = _apart(labels.class_names)
        return Subjects(names=names, prompts=tuple(map(tuple, prompts)))
    names = check_labels(labels, least=1)
    given = (templates,) if isinstance(templates, str) else tuple(templates)
    if repeated := repeated_in(given):
        raise DiffjaxError(f"Templates are given more than once: {repeated}.")
    halves = [split_template(template) for template in given]
    return Subjects(
        names=names,
        prompts=tuple(tuple(a + name + b for a, b in halves) for name in names),
    )


def _of_ids(model: DiffusionModel, labels: Iterable[str] | None) -> Subjects:
    assert model.n_classes is not None  # of every class-conditional model
    if labels is None:
        names = _apart(model.class_names or [*map(str, range(model.n_classes))])
        ids = tuple(range(len(names)))
    else:
        names = check_labels(labels, least=1)
        advice = "" if model.limits is None else model.limits.advice(model.name)
        ids = class_ids(names, model.class_names, model.n_classes, advice, least=1)
    return Subjects(names=names, prompts=tuple((name,) for name in names), ids=ids)


def _apart(names: Sequence[str]) -> tuple[str, ...]:
    """Names that differ: of ImageNet's two cranes each has its number."""
    twice = {name for name, n in Counter(names).items() if n > 1}
    return tuple(f"{n} {i}" if n in twice else n for i, n in enumerate(names))
