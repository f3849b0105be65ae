"""An evaluation from Python: the command as a function."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from operator import index
from pathlib import Path
from typing import Any, Unpack

from jax.typing import DTypeLike

from diffjax.checkpoints.parts import spelled_out
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.classify.settings import Options
from diffjax.data.datasets import source_of
from diffjax.data.presets import is_preset
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.evaluation.bar import Bar
from diffjax.evaluation.experiment import Experiment
from diffjax.evaluation.request import requested
from diffjax.evaluation.runner import evaluate as run_evaluation
from diffjax.runs.folder import read_run
from diffjax.runs.outcomes import failures
from diffjax.runs.run import Run
from diffjax.runs.sharing import Share


class EvaluateOptions(Options, total=False):
    """Keyword arguments of ``evaluate`` that are options of the command too.

    Those of ``DiffusionClassifier.from_pretrained``, and:

    Attributes:
        dtype: Number type of the denoiser, as for ``from_pretrained``.
        split: Split of the data set; its own test split by default.
        data_dir: Folder that holds the data sets that are named.
        subset: Images by their index: numbers, a .npy file, or ranges as
            "0:100,200:300".
        per_class: How many images to take of each class.
        subset_seed: Seed of the draw of ``per_class``.
        limit: How many images to take.
        max_pixels: Size above which an image is refused.
        corrupt: How images are made worse, as "blur:3".
        classes: Numbers of the classes to choose from: themselves, as ranges, in a
            file, or by a name.
        image_column: Column of images of a data set of Hugging Face.
        label_column: Column of labels of such a data set.
        prompts: ``Prompts``, a CSV file of them, or a preset's name.
        classnames: File of class names, as CLIP_benchmark has it.
        templates: File of templates, as CLIP_benchmark has it.
        clip_name: What these files call the data set.
        template: Prompt with a {} for the class name, or several.
        prefilter: File of each image's candidate classes, or "clip:NAME:k=20" for
            those that CLIP finds best.
        paper: Whether to take a preset's strategy and loss from the paper.
    """

    dtype: DTypeLike
    split: str | None
    data_dir: str | Path | None
    subset: str | Path | Iterable[int] | None
    per_class: int | None
    subset_seed: int | None
    limit: int | None
    max_pixels: int | None
    corrupt: str | None
    classes: str | Path | Iterable[int] | None
    image_column: str | None
    label_column: str | None
    prompts: str | Path | Prompts | None
    classnames: str | Path | None
    templates: str | Path | None
    clip_name: str | None
    template: str | Sequence[str] | None
    prefilter: str | Path | None
    paper: bool | None


@spelled_out
def evaluate(
    model: DiffusionClassifier | str | Path,
    dataset: Any,
    *,
    out: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    save_errors: bool = False,
    latent_cache: str | Path | None = None,
    process_index: int = 0,
    process_count: int = 1,
    progress: bool | Progress = True,
    **options: Unpack[EvaluateOptions],
) -> Run:
    """Evaluate a model on a data set, as ``diffjax evaluate`` does.

    The run is kept in a folder as it grows. The same call again goes on where it
    stopped, and returns at once what is complete; so does the command.

    Args:
        model: A name or folder, as for ``DiffusionClassifier.from_pretrained``; or a
            classifier, whose own strategy and loss then stand, a preset's too.
        dataset: The name of a preset, or what the command's ``--dataset`` takes: the
            name of a data set, a folder, a table, "hf:NAME:SPLIT". Or the data set
            itself: a ``datasets.Dataset`` of Hugging Face, or an iterable of
            (image, label) or {"image": …, "label": …, "id": …}, which is read to its
            end: give paths for images where they are many. Labels are numbers or names.
        out: The folder of the run: by default runs/DATASET-MODEL, as the command has
            it; of a data set without a name its fingerprint stands there.
        class_names: The names of the classes, of an iterable whose labels are numbers,
            or not of all classes. By default the labels' own: their digits, or the
            sorted names.
        save_errors: Whether to keep the error of every class and sample, for
            ``diffjax rescore``.
        latent_cache: A folder that keeps the images' latents for other runs.
        process_index: Which of several processes on one run this is, from 0.
        process_count: How many processes share the run; each does its part.
        progress: Whether to show a bar, or an object that is told how far it is. In a
            notebook the bar needs ipywidgets; without them there are lines.
        **options: The command's options by their names with underscores, each None or
            left out for its default: see ``EvaluateOptions``.

    Returns:
        The run as it is on disk. Images that failed are told of in a warning.

    Raises:
        DiffjaxError: If something is missing or does not fit, or ``out`` holds a run of
            another configuration.
    """
    known = _plain(options)
    preset = dataset if isinstance(dataset, str) and is_preset(dataset) else None
    source = None
    if not isinstance(dataset, str | Path):
        columns = ("split", "max_pixels", "image_column", "label_column")
        named = {name: known.get(name) for name in columns}
        source = source_of(dataset, class_names=class_names, **named)
        known["dataset"] = source.name
    elif class_names is not None:
        raise DiffjaxError(
            "class_names are of data sets without any. Give other names to the classes "
            "of one that is named by classnames and templates, or by prompts."
        )
    elif preset is None:
        known["dataset"] = str(dataset)
    data_dir = known.pop("data_dir", None)
    offline = bool(known.get("local_files_only"))
    if isinstance(model, DiffusionClassifier):
        if wrong := sorted(set(known) - {f.name for f in fields(Experiment)}):
            raise DiffjaxError(
                f"{wrong[0]} belongs to the classifier: give it to "
                "DiffusionClassifier.from_pretrained, or name the model here."
            )
        asked, name = requested(preset, known), model.model.name
    else:
        asked, name = requested(preset, known), str(model)
    path = asked.folder(name) if out is None else Path(out)
    if out is None and source is not None:  # else all lists went to one folder
        mark = f"{asked.name}-{source.fingerprint[:8]}"
        path = path.with_name(path.name.replace(asked.name, mark, 1))
    task = asked.experiment.task(data_dir, offline=offline, source=source, run=path)
    if isinstance(model, DiffusionClassifier):
        classifier = model
    else:
        classifier = DiffusionClassifier.from_pretrained(model, **known)
    asked.check(task, classifier, name)
    with _shown(progress, f"{asked.name} {name}") as shown:
        try:
            run_evaluation(
                task,
                classifier,
                path,
                asked=asked.experiment.as_dict(),
                save_errors=save_errors,
                cache=None if latent_cache is None else Path(latent_cache),
                share=Share(process_index, process_count),
                progress=shown,
            )
        except DiffjaxError as error:
            raise DiffjaxError(f"{error}{asked.hint(path)}") from error
    run = read_run(path)
    if failed := failures(run):
        first, reason = failed[0]
        warnings.warn(
            f"{len(failed):,} of {len(run.rows):,} images failed; the first, {first}: "
            f"{reason} The same call tries them again.",
            stacklevel=3,
        )
    return run


@contextmanager
def _shown(progress: bool | Progress, name: str) -> Iterator[Progress]:
    """An object to be told how far it is: the caller's, or one that a bar shows."""
    if isinstance(progress, Progress):
        yield progress
        return
    from rich.console import Console

    with Bar(Console(stderr=True), name, quiet=not progress) as bar:
        yield Progress(watch=bar.show)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were given, as the command has them: texts and tuples."""
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(given.get("template"), str):
        given["template"] = (given["template"],)
    for name in given.keys() & {f.name for f in fields(Experiment)}:
        if isinstance(given[name], Path):
            given[name] = str(given[name])
    for name in given.keys() & {"subset", "classes"}:
        if not isinstance(given[name], str):
            given[name] = ",".join(str(index(number)) for number in given[name])
    for name in given.keys() & {"template", "also"}:
        given[name] = tuple(given[name])
    return given
