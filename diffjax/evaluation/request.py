"""An evaluation as it is asked for, by the command or from Python."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.data.huggingface import PREFIX
from diffjax.data.presets import clean_preset, find_preset
from diffjax.data.tables import SUFFIXES
from diffjax.errors import DiffjaxError
from diffjax.evaluation.experiment import Experiment, overridden, preset_experiment
from diffjax.evaluation.task import Task
from diffjax.runs.header import read_header
from diffjax.strategies import parse_strategy, strategy_to_dict

RUNS = Path("runs")  # where runs go that nobody gave a folder


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be evaluated.

    Attributes:
        preset: the name of the preset, if that was how the data set was named.
        experiment: the images and classes.
        paper: strategy and loss, as a run's header has them, that are not taken but
            would be if the paper's were asked for.
    """

    preset: str | None
    experiment: Experiment
    paper: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """What a run is called after: the preset or data set, and its corruption."""
        name = short(self.preset or self.experiment.dataset)
        corrupt = self.experiment.corrupt
        return name if corrupt is None else f"{name}-{corrupt.replace(':', '-')}"

    def folder(self, model: str) -> Path:
        """Where the run of a model goes, if nothing else is said."""
        return RUNS / f"{self.name}-{short(model.rpartition('/')[2] or model)}"

    def hint(self, path: Path) -> str:
        """What to add where a run of the paper's settings refuses to go on.

        All runs of presets had them before classes were raced by default.
        """
        try:
            there = read_header(path)["experiment"]
        except DiffjaxError:
            return ""
        paper = self.paper
        if paper is None or any(there.get(name) != paper[name] for name in paper):
            return ""
        return "\nIt was begun with the settings of the paper, which --paper takes."

    def check(self, task: Task, classifier: DiffusionClassifier, model: str) -> None:
        """Warn of prompts that are not used, or that name classes by their numbers."""
        asked, kind = self.experiment, classifier.model.kind
        ways = (asked.prompts, asked.classnames, asked.templates, asked.template)
        preset = None if self.preset is None else preset_experiment(self.preset)
        given = any(ways) and not (preset and asked.prompts == preset.prompts)
        if kind == "class" and given:
            warnings.warn(
                f"{model} knows classes by id: prompts are not used.", stacklevel=4
            )
        numbers = all(name.isdecimal() for name in task.class_names)
        if kind == "text" and numbers and not (self.preset or given):
            warnings.warn(
                f"The classes of {asked.dataset} are numbers, and so prompts are such "
                f"as {task.prompts.prompts[0]!r}. Name them: with --prompts, or with "
                "--classnames and --templates.",
                stacklevel=4,
            )


def requested(preset: str | None, options: dict[str, Any]) -> Request:
    """Take what names images and classes out of options.

    What is left are the settings of a classifier. Of a preset, its strategy is among
    them where none was given; and where the paper is asked for, its loss.

    Args:
        preset: its name; None where the options name a data set.
        options: by name, None for what was not given; "paper" asks for the paper's
            strategy and loss.

    Raises:
        DiffjaxError: if there is no such preset.
    """
    given = {f.name: options.pop(f.name, None) for f in fields(Experiment)}
    asked = options.pop("paper", None)
    if preset is not None and clean_preset(given["dataset"] or "") == preset:
        preset = given["dataset"]  # the preset's images made worse, all else as it is
    if preset is None:
        if asked:
            raise DiffjaxError(
                "The paper's strategy and loss are those of a preset: name one, as in "
                "`diffjax evaluate cifar10 --paper`."
            )
        experiment = Experiment(dataset=given["dataset"])
        return Request(preset=None, experiment=overridden(experiment, given))
    experiment, known = preset_experiment(preset), find_preset(preset)
    paper = {name: options.get(name) for name in ("strategy", "loss")}
    paper["strategy"] = paper["strategy"] or known.paper
    paper["loss"] = paper["loss"] or known.loss
    options["strategy"] = options.get("strategy") or known.strategy
    if asked:
        options |= paper
    other = {name: options.get(name) for name in paper} != paper
    if isinstance(text := paper["strategy"], str):
        paper["strategy"] = strategy_to_dict(parse_strategy(text))
    return Request(
        preset=preset,
        experiment=overridden(experiment, given),
        paper=paper if other else None,
    )


def short(name: str) -> str:
    """What a folder can be called after a data set or a model."""
    if name.startswith(PREFIX):
        place, *rest = name.removeprefix(PREFIX).split(":")
        return "-".join([short(place), *rest])
    is_table = name.lower().endswith((*SUFFIXES, ".parquet"))
    if not (is_table or name.startswith((".", "/", "~"))):
        return name.replace("/", "-").replace(":", "-")
    path = Path(name).expanduser().resolve()  # "." has no name
    return path.stem if is_table else path.name
