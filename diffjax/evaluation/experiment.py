"""What is asked for: a data set, which of its images, which classes and prompts."""

import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from diffjax.data.classes import parse_classes, read_classes
from diffjax.data.corruptions import CorruptedSource, parse_corruption
from diffjax.data.datasets import open_source
from diffjax.data.imagenet import readable_names
from diffjax.data.prefilter import Prefilter, read_prefilter
from diffjax.data.presets import classes_file, find_preset, prompts_file
from diffjax.data.prompts import Prompts
from diffjax.data.sources import Source
from diffjax.data.subsets import limited, select
from diffjax.data.templates import read_clip_benchmark
from diffjax.errors import DiffjaxError
from diffjax.evaluation.prefiltering import asks_for_clip, clip_prefilter
from diffjax.evaluation.task import Task, make_task
from diffjax.files import user_path
from diffjax.runs.header import limited_evenly


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Images and classes as a user names them.

    Attributes:
        dataset: as ``data.datasets.open_source`` takes it.
        split: of the data set; its own test split by default.
        subset: of the images, as ``data.subsets.select`` takes it.
        per_class: images of each class.
        subset_seed: of their draw.
        limit: number of images, evenly spread; a larger one adds to them.
        corrupt: how images are made worse, as ``data.corruptions`` reads it.
        classes: the candidates: a file of class numbers, a class list of the package,
            or numbers and ranges as in "0:10,20"; all by default.
        prompts: a CSV file, a prompt file of the package, or the prompts themselves.
        classnames: a file of class names, as CLIP_benchmark has it.
        templates: a file of templates, as CLIP_benchmark has it; without
            ``classnames`` for the data set's own names.
        clip_name: what CLIP_benchmark's tables call the data set, where one of the
            files is a table.
        template: templates for the data set's own class names.
        prefilter: a file of each image's candidate classes, or clip:NAME:k=N.
        max_pixels: of image files; see ``data.images.load_image``.
        image_column: of a data set of Hugging Face, where types do not tell it.
        label_column: as ``image_column``.
    """

    dataset: str
    split: str | None = None
    subset: str | None = None
    per_class: int | None = None
    subset_seed: int = 0
    limit: int | None = None
    corrupt: str | None = None
    classes: str | None = None
    prompts: str | Prompts | None = None
    classnames: str | None = None
    templates: str | None = None
    clip_name: str | None = None
    template: tuple[str, ...] = ()
    prefilter: str | None = None
    max_pixels: int | None = None
    image_column: str | None = None
    label_column: str | None = None

    def task(
        self,
        data_dir: str | Path | None = None,
        *,
        offline: bool = False,
        source: Source | None = None,
        run: Path | None = None,
    ) -> Task:
        """Open the data set and read the prompts.

        Args:
            data_dir: the folder that holds the named data sets.
            offline: whether to leave the network alone.
            source: the data set, if it is open already.
            run: the folder of the run; one that was begun before limits were nested
                keeps its images.

        Raises:
            DiffjaxError: if something is missing or does not fit.
        """
        if source is None:
            source = open_source(
                self.dataset,
                self.split,
                data_dir,
                self.max_pixels,
                offline=offline,
                image_column=self.image_column,
                label_column=self.label_column,
            )
        if self.corrupt is not None:
            source = CorruptedSource(source, parse_corruption(self.corrupt))
        n = len(source.class_names)
        chosen = None
        if self.classes is not None:
            chosen = _classes(self.classes, n)
        pool = select(
            source, self.subset, self.per_class, self.subset_seed, classes=chosen
        )
        nested = run is None or not limited_evenly(run)
        indices = limited(pool, self.limit, nested=nested)
        task = make_task(
            source,
            indices,
            self._prompts(source),
            chosen,
            pool=pool if nested else None,
        )
        return replace(task, prefilter=self._prefilter(task, offline))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; prompts themselves are not among them."""
        named = self.prompts if isinstance(self.prompts, str) else None
        return asdict(self) | {"template": list(self.template), "prompts": named}

    def _prefilter(self, task: Task, offline: bool) -> Prefilter | None:
        asked = self.prefilter
        if asked is None:
            return None
        if user_path(asked).exists() or not asks_for_clip(asked):
            return read_prefilter(asked)
        return clip_prefilter(asked, task.prompts, task.classes, offline=offline)

    def _prompts(self, source: Source) -> Prompts | None:
        given = {
            "--prompts": self.prompts is not None,
            "--classnames and --templates": (self.classnames or self.templates)
            is not None,
            "--template": bool(self.template),
        }
        if sum(given.values()) > 1:
            names = [name for name, is_given in given.items() if is_given]
            raise DiffjaxError(f"{' and '.join(names)} exclude each other.")
        if isinstance(self.prompts, Prompts):
            return self.prompts
        if self.prompts is not None:
            return Prompts.read_csv(package_file(self.prompts, ".csv"))
        if self.templates is not None:
            own = readable_names(source.class_names)
            return read_clip_benchmark(
                self.classnames or own, self.templates, self.clip_name
            )
        if self.classnames is not None:
            raise DiffjaxError("Give --classnames together with --templates.")
        if self.template:
            return Prompts.from_names(readable_names(source.class_names), self.template)
        return None


def preset_experiment(name: str) -> Experiment:
    """The experiment of a preset, which has strategies besides.

    Raises:
        DiffjaxError: if there is no such preset.
    """
    preset = find_preset(name)
    return Experiment(
        dataset=preset.dataset,
        split=preset.split,
        per_class=preset.per_class,
        classes=preset.classes,
        prompts=preset.prompts,
    )


def overridden(experiment: Experiment, given: dict[str, Any]) -> Experiment:
    """The experiment with everything that was given in place of its own.

    What goes together goes together: other prompts push out all of the experiment's
    own, another data set its split, images, classes and prompts.
    """
    given = {name: value for name, value in given.items() if value not in (None, ())}
    ways = ("prompts", "classnames", "templates", "clip_name", "template")
    drop: tuple[str, ...] = ways if any(way in given for way in ways) else ()
    if given.get("dataset", experiment.dataset) != experiment.dataset:
        drop = tuple(f.name for f in fields(Experiment) if f.name != "dataset")
    if "subset" in given:
        drop += ("per_class",)
    blank = Experiment(dataset=experiment.dataset)
    cleared = {name: getattr(blank, name) for name in drop}
    return replace(experiment, **(cleared | given))


def _classes(text: str, n_classes: int) -> tuple[int, ...]:
    """Class numbers: in a file, of a list of the package, or there themselves."""
    if re.fullmatch(r"[\d:, ]+", text):
        name = f"The text {text!r} of classes"
        return parse_classes([(name, text)], name, n_classes)
    return read_classes(package_file(text, ".txt"), n_classes)


def package_file(name: str, suffix: str) -> Path:
    """A file by its path, or one of the package by its name."""
    if name.lower().endswith(suffix) or "/" in name:
        return Path(name)
    return prompts_file(name) if suffix == ".csv" else classes_file(name)
