"""An evaluation as it is asked for, by the command or from Python."""

import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.data.tables import SUFFIXES
from diffjax.evaluation.experiment import Experiment, overridden, preset_experiment
from diffjax.evaluation.task import Task

RUNS = Path("runs")  # where runs go that nobody gave a folder


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be evaluated.

    Attributes:
        preset: the name of the preset, if that was how the data set was named.
        experiment: the images and classes.
    """

    preset: str | None
    experiment: Experiment

    @property
    def name(self) -> str:
        """What a run is called after: the preset or data set, and its corruption."""
        name = self.preset or short(self.experiment.dataset)
        corrupt = self.experiment.corrupt
        return name if corrupt is None else f"{name}-{corrupt.replace(':', '-')}"

    def folder(self, model: str) -> Path:
        """Where the run of a model goes, if nothing else is said."""
        return RUNS / f"{self.name}-{short(model.rpartition('/')[2] or model)}"

    def check(self, task: Task, classifier: DiffusionClassifier, model: str) -> None:
        """Warn of prompts that are not used, or that name classes by their numbers."""
        asked, kind = self.experiment, classifier.model.kind
        ways = (asked.prompts, asked.classnames, asked.templates, asked.template)
        preset = None if self.preset is None else preset_experiment(self.preset)[0]
        given = any(ways) and not (preset and asked.prompts == preset.prompts)
        if kind == "class" and given:
            warnings.warn(
                f"{model} knows classes by id: prompts are not used.", stacklevel=2
            )
        numbers = all(name.isdecimal() for name in task.class_names)
        if kind == "text" and numbers and not (self.preset or given):
            warnings.warn(
                f"The classes of {asked.dataset} are numbers, and so prompts are such "
                f"as {task.prompts.prompts[0]!r}. Name them: with --prompts, or with "
                "--classnames and --templates.",
                stacklevel=2,
            )


def requested(preset: str | None, options: dict[str, Any]) -> Request:
    """Take what names images and classes out of options.

    What is left are the settings of a classifier, strategy and loss of the preset among
    them where none was given.

    Args:
        preset: its name; None where the options name a data set.
        options: by name, None for what was not given.

    Raises:
        DiffjaxError: if there is no such preset.
    """
    given = {f.name: options.pop(f.name, None) for f in fields(Experiment)}
    if preset is None:
        experiment = Experiment(dataset=given["dataset"])
    else:
        experiment, strategy, loss = preset_experiment(preset)
        options["strategy"] = options.get("strategy") or strategy
        options["loss"] = options.get("loss") or loss
    return Request(preset=preset, experiment=overridden(experiment, given))


def short(name: str) -> str:
    """What a folder can be called after a data set or a model."""
    name = name.removeprefix("hf:")
    is_table = name.lower().endswith((*SUFFIXES, ".parquet"))
    if not (is_table or name.startswith((".", "/", "~"))):
        return name.replace("/", "-").replace(":", "-")
    path = Path(name).expanduser().resolve()  # "." has no name
    return path.stem if is_table else path.name
