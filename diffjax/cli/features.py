"""``diffjax features``."""

import csv
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffjax.cli import completion
from diffjax.cli.datasets import which_classes, which_images
from diffjax.cli.group import fail_if_partial, group, loading, print_json, start
from diffjax.cli.options import (
    checkpoint_options,
    dtype_option,
    image_options,
    json_option,
    new_file,
    noise_source_option,
    number,
    option,
    path,
    quiet_option,
    section,
    seed_option,
    shard_weights_option,
)
from diffjax.data.prompts import split_labels
from diffjax.files import user_path, write_json, write_text

if TYPE_CHECKING:
    from rich.console import Console

    from diffjax.evaluation.experiment import Experiment
    from diffjax.evaluation.feature_heads import Outcome

HEADS = ("linear", "resnet")
EPILOG = """\b
Examples:
  diffjax features cifar10 --model tiny --data-dir data
  diffjax features cifar10 --layers mid_block,up_blocks.0 --timesteps 10,100,300 \\
      --heads linear --plot features.png --zero-shot runs/cifar10-tiny
  diffjax features pets --model sd-2-base --train-split train"""


@group.command(
    usual=(
        *("--model", "--data-dir", "--train-limit", "--limit", "--layers"),
        *("--timesteps", "--heads", "--zero-shot", "--out", "--plot"),
    ),
    epilog=EPILOG,
)
@click.argument("dataset", metavar="DATASET", shell_complete=completion.presets)
@section(
    "data",
    option(
        "--train-split",
        "SPLIT",
        "Split that heads learn from; --split is tested on.",
        show_default="train, where there are splits",
    ),
    option(
        "--train-dataset",
        "DATASET",
        "Another data set of the same classes to learn from.",
        show_default="DATASET",
    ),
    number("--train-limit", "Learn from so many images, spread evenly."),
    option("--train-subset", "FILE.npy|RANGES", "Learn from these images alone."),
    which_images,
    option("--image-column", "NAME", "Column of images, where hf: has several."),
    option("--label-column", "NAME", "Column of labels, where hf: has several."),
)
@image_options
@section(
    "data", path("--latent-cache", "DIR", "Folder that keeps latents for other runs.")
)
@section("prompts", which_classes)
@section(
    "deciding",
    option(
        "--layers",
        "NAME,...",
        "Layers by diffusers' names: mid_block, up_blocks.1, transformer_blocks.13.",
        show_default="the one in the middle",
    ),
    option(
        "--timesteps",
        "T,...",
        "Timesteps of the noise.",
        show_default="a tenth of the schedule, 100 of 1,000",
    ),
    option(
        "--heads",
        "NAME,...",
        "linear, of the mean of a map, or resnet.",
        default="resnet",
    ),
    number("--places", "Average maps down to N × N places.", default=8),
    number("--epochs", "Of training, at most.", show_default="40 linear, 10 resnet"),
    option(
        "--held-out",
        "X",
        "Share of the training images that choose weight decay, epoch, layer and "
        "timestep.",
        type=click.FloatRange(0, 0.9, min_open=True),
        default=0.1,
    ),
    seed_option("Seed of noise, batches and initial weights."),
    noise_source_option,
)
@checkpoint_options
@section(
    "device",
    dtype_option,
    option(
        "--cells",
        "N",
        "Most images per device call.",
        type=int,
        show_default="what memory holds",
    ),
    shard_weights_option,
)
@section(
    "output",
    path(
        "--out",
        "FOLDER",
        "Folder of features and results; what is there goes on.",
        show_default="runs/features/DATASET-MODEL",
    ),
    new_file("--plot", "Draw accuracy by layer and timestep."),
    option(
        "--zero-shot",
        "RUN",
        "A finished run of evaluate to stand beside it.",
        shell_complete=completion.runs,
    ),
    json_option,
    quiet_option,
)
def features(
    dataset: str,
    model: str,
    layers: str | None,
    timesteps: str | None,
    heads: str,
    places: int,
    epochs: int | None,
    held_out: float,
    out: Path | None,
    plot: Path | None,
    zero_shot: str | None,
    latent_cache: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train heads on frozen features of a diffusion model: the paper's SD features.

    Images are noised to a timestep, and a head on what a layer of the network puts out
    learns their labels. That is NOT zero-shot, and every table says so. Heads, layers
    and timesteps are chosen by training images that are held out; what is told of each
    is its accuracy on the test images.
    """
    console, stdout = start()
    kinds, names = _listed("--heads", heads), _listed("--layers", layers)
    if wrong := [kind for kind in kinds if kind not in HEADS]:
        raise click.UsageError(f"There is no head {wrong[0]!r}: {' or '.join(HEADS)}.")
    times = [_timestep(each) for each in _listed("--timesteps", timesteps)]
    with loading(console, quiet):
        from diffjax.classify.classifier import DiffusionClassifier
        from diffjax.evaluation.feature_heads import (
            Course,
            check_tasks,
            chosen,
            report,
            train_heads,
            write_run,
        )
        from diffjax.evaluation.feature_heads import zero_shot as read_zero_shot
        from diffjax.evaluation.features import extract, wanted
        from diffjax.evaluation.request import RUNS, short
        from diffjax.report.plots import check_output
        from diffjax.runs.folder import read_run

    if plot is not None:
        check_output(plot)
    learned, tested = _experiments(dataset, options)
    data_dir, offline = options.pop("data_dir"), options["local_files_only"]
    train, test = (each.task(data_dir, offline=offline) for each in (learned, tested))
    check_tasks(train, test)
    beside = None if zero_shot is None else read_run(zero_shot, errors=False)
    standing = None if beside is None else read_zero_shot(beside, test)
    with loading(console, quiet, f"loading {model}"):
        classifier = DiffusionClassifier.from_pretrained(model, **options)
    asked = wanted(classifier, names, times, places)
    place = out or RUNS / "features" / f"{short(dataset)}-{short(model)}"
    maps = []
    for name, task in (("to learn from", train), ("to test on", test)):
        with _bar(console, f"images {name}", quiet) as watch:
            found = extract(
                task, classifier, asked, place / "maps", cache=latent_cache, watch=watch
            )
        maps.append(found)
    course = Course(kinds=kinds, seed=options["seed"], held=held_out, epochs=epochs)

    def told(outcome: "Outcome") -> None:
        if not quiet:
            layer, t = outcome.cell
            right = 100 * outcome.right.mean()
            kind = outcome.head.kind
            click.echo(f"{layer} at t = {t}, {kind}: {right:.1f} % right", err=True)

    with loading(console, quiet, "training heads"):
        outcomes = train_heads(train, test, maps[0], maps[1], course, told)
    best = chosen(outcomes)
    run = write_run(
        place, best, train, test, classifier, tested.as_dict(), asked, course
    )
    result = report(outcomes, best, train, test, classifier, standing, run)
    write_json(run / "features.json", result)
    write_text(run / "features.csv", _csv(result["rows"]))
    if plot is not None:
        _draw(result, plot, len(test.classes))
    if as_json:
        print_json(result)
    else:
        _show(result, stdout)
        click.echo(f"Run: {run}", err=True)
    if beside is not None:
        fail_if_partial([beside.shortfall], allowed=True)


def _listed(flag: str, text: str | None) -> tuple[str, ...]:
    """The parts of a list with commas, each once."""
    if text is None:
        return ()
    parts = tuple(split_labels(text))
    if len(set(parts)) < len(parts):
        raise click.UsageError(f"{flag} {text!r} names one twice.")
    return parts


def _timestep(text: str) -> int:
    if not text.isdecimal():
        raise click.UsageError(
            f"--timesteps takes whole numbers, as 10,100; not {text!r}."
        )
    return int(text)


def _experiments(
    dataset: str, options: dict[str, Any]
) -> "tuple[Experiment, Experiment]":
    """The images to learn from, and those to test on; their options are taken out."""
    from dataclasses import fields, replace

    from diffjax.data.presets import is_preset
    from diffjax.evaluation.experiment import Experiment, overridden, preset_experiment

    theirs = {f.name for f in fields(Experiment)} & options.keys()
    given = {name: options.pop(name) for name in theirs}
    parts = {
        name: options.pop(f"train_{name}")
        for name in ("dataset", "split", "limit", "subset")
    }
    other = parts.pop("dataset")
    if other is None or _has_train(other):
        parts["split"] = parts["split"] or "train"
    shared = ("classes", "max_pixels", "image_column", "label_column")
    same = {name: given.get(name) for name in shared}

    def known(name: str) -> Experiment:
        return preset_experiment(name) if is_preset(name) else Experiment(dataset=name)

    learned = overridden(known(other or dataset), parts | same)
    learned = replace(learned, per_class=None)  # a preset's is of its test images
    return learned, overridden(known(dataset), given)


def _has_train(dataset: str) -> bool:
    """Whether another data set has a split to learn from, or is one itself."""
    from diffjax.data.huggingface import PREFIX
    from diffjax.data.tables import SUFFIXES

    if dataset.startswith((".", "/", "~")):
        return (user_path(dataset) / "train").is_dir()
    return not (dataset.lower().endswith(SUFFIXES) or dataset.startswith(PREFIX))


def _bar(console: "Console", name: str, quiet: bool) -> AbstractContextManager[Any]:
    """A bar, as a function that is told how many of how many images are done."""
    from contextlib import contextmanager

    from diffjax.classify.progress import Progress
    from diffjax.evaluation.bar import Bar

    @contextmanager
    def shown() -> Any:
        with Bar(console, name, quiet=quiet) as bar:
            progress = Progress(watch=bar.show)

            def watch(done: int, total: int) -> None:
                progress.total, progress.done = total, done
                bar.show(progress)

            yield watch

    return shown()


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    import io

    lines = []
    for row in rows:
        low, high = row["interval"]
        flat = {k: v for k, v in row.items() if k != "interval"}
        lines.append(flat | {"low": low, "high": high})
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _draw(result: Mapping[str, Any], plot: Path, classes: int) -> None:
    from diffjax.report.feature_plots import features_figure
    from diffjax.report.plots import save_figure

    tested = result["tested_on"]
    title = (
        f"Features of {result['model']} on {tested['name']}, labels "
        f"of {result['learned_on']['n']:,} images"
    )
    figure = features_figure(result["rows"], title, 1 / classes, result["beside"])
    save_figure(figure, plot)


def _show(result: Mapping[str, Any], stdout: "Console") -> None:
    from diffjax.cli.columns import Column, FittingTable
    from diffjax.cli.tables import stacked

    titles = (("t", 0), ("head", 3), ("accuracy %", 0), ("held out %", 1))
    more = (("weight decay", 4), ("epoch", 5))
    table = FittingTable(
        columns=[
            Column(title="layer", justify="left"),
            *(Column(title=title, goes=goes) for title, goes in titles + more),
        ]
    )
    for row in result["rows"]:
        table.add_row(
            row["layer"],
            f"{row['timestep']}",
            row["head"],
            stacked(row["accuracy"], *row["interval"]),
            f"{100 * row['held_out_accuracy']:.1f}",
            f"{row['weight_decay']:g}",
            f"{row['epoch']}",
            style="bold" if row == result["chosen"] else "",
        )
    stdout.print(table)
    best = result["chosen"]
    low, high = (100 * end for end in best["interval"])
    lines = [
        f"Chosen by {best['held_out']:,} training images that were held out: "
        f"{best['layer']} at t = {best['timestep']}, {best['head']}. It decides "
        f"{100 * best['accuracy']:.1f} % of {best['images']:,} test images rightly "
        f"({low:.1f} to {high:.1f}). NOT zero-shot: it has learned the labels "
        f"{result['labels_seen']}."
    ]
    if beside := result["beside"]:
        low, high = (100 * end for end in beside["interval"])
        which = "the same" if beside["same_images"] else "its"
        lines.append(
            f"Without a head, {beside['model']} in {beside['run']}: "
            f"{100 * beside['accuracy']:.1f} % of {which} {beside['images']:,} images "
            f"({low:.1f} to {high:.1f})."
        )
    for line in lines:
        stdout.print(line, highlight=False, markup=False)
