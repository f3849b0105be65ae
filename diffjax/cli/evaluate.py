"""``diffjax evaluate``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from diffjax.choices import LOSSES, STRATEGY
from diffjax.cli import completion
from diffjax.cli.datasets import class_options, data_options
from diffjax.cli.dry_run import outlook, outlook_table
from diffjax.cli.group import Failure, group, keep, loading, print_json, start
from diffjax.cli.options import (
    checkpoint_options,
    choice,
    deciding_options,
    device_options,
    json_option,
    number,
    option,
    path,
    quiet_option,
    section,
    strategies,
    switch,
)
from diffjax.data.presets import PRESETS, Preset
from diffjax.errors import DiffjaxError

if TYPE_CHECKING:
    from diffjax.classify.progress import Progress
    from diffjax.evaluation.experiment import Experiment
    from diffjax.evaluation.tracking import Tracker


def _preset_row(preset: Preset) -> tuple[str, str]:
    """A row of the help."""
    data = f"{preset.dataset.partition('/')[0]} {preset.split}"
    keep, seen = (",".join(map(str, numbers)) for numbers in preset.stages)
    return preset.name, f"{data}; {preset.n_samples}; {preset.loss} {keep} / {seen}"


LISTINGS = strategies(STRATEGY, "default; n_samples by preset") | {
    "Presets": [
        (
            "PRESET",
            "data; samples of a class at most; with --paper loss, and classes kept / "
            "samples seen after each stage",
        ),
        *map(_preset_row, PRESETS.values()),
    ]
}
EPILOG = """\b
Examples:
  diffjax evaluate cifar10 --data-dir data --limit 100
  diffjax evaluate pets --model sd-2-base --out runs/pets
  diffjax evaluate imagenet --model dit-256 --also vlb --dry-run
  diffjax evaluate cifar10 --corrupt blur:3
  diffjax evaluate --dataset ./photos --template "a photo of a {}."
"""
LOG_EVERY = 10  # images

process_options = section(
    "device",
    number(
        "--process-index",
        "Which of several processes on one run this is, from 0.",
        least=0,
        metavar="K",
        default=0,
    ),
    number(
        "--process-count",
        "How many there are; each does its part of the images.",
        default=1,
    ),
    switch(
        "--distributed",
        "Take both from what launched the processes: Slurm, MPI or a TPU pod.",
    ),
)
run_options = section(
    "output",
    path(
        "--out",
        "RUN",
        "Folder of the run; a run that is there goes on.",
        show_default="runs/DATASET-MODEL",
    ),
    switch(
        "--save-errors",
        "Keep all errors, for `diffjax rescore` and more of `diffjax report`.",
    ),
    switch("--allow-errors", "End well even if some images could not be read."),
    switch(
        "--dry-run",
        "Print what would be done and what it would take; at most a few images are "
        "tried.",
    ),
    option("--wandb", "PROJECT", "Follow it on Weights & Biases."),
    path("--tensorboard", "DIR", "Follow it in TensorBoard."),
    json_option,
    quiet_option,
)


@group.command(
    usual=(
        *("--dataset", "--data-dir", "--limit", "--template", "--strategy"),
        *("--paper", "--model", "--out", "--save-errors", "--dry-run"),
    ),
    listings=LISTINGS,
    epilog=EPILOG,
)
@click.argument(
    "preset",
    required=False,
    metavar="[PRESET]",
    shell_complete=completion.presets,
)
@data_options
@class_options
@deciding_options
@section(
    "deciding",
    choice(
        "--also",
        LOSSES,
        "A further loss, of the same evaluations; may be repeated.",
        multiple=True,
    ),
    switch(
        "--paper",
        "Take the preset's strategy and loss from the paper, instead of racing by l2.",
    ),
)
@checkpoint_options
@device_options
@process_options
@run_options
@click.pass_context
def evaluate(ctx: click.Context, /, preset: str | None, **options: Any) -> None:
    """Evaluate a model on a data set.

    PRESET is a data set with all of its settings; what is given besides takes their
    place. The run goes to a folder; the same command again goes on where it stopped.
    """
    console, stdout = start()
    quiet, as_json = options.pop("quiet"), options.pop("as_json")
    dry_run, allow_errors = options.pop("dry_run"), options.pop("allow_errors")
    trackers_asked = options.pop("wandb"), options.pop("tensorboard")
    out, cache = options.pop("out"), options.pop("latent_cache")
    save_errors, model = options.pop("save_errors"), options.pop("model")
    process = options.pop("process_index"), options.pop("process_count")
    distributed = options.pop("distributed")
    with loading(console, quiet):
        from diffjax.evaluation.launchers import launched
        from diffjax.evaluation.request import requested
        from diffjax.evaluation.runner import evaluate as run_evaluation
        from diffjax.runs.folder import read_run
        from diffjax.runs.outcomes import failures
        from diffjax.runs.sharing import Share
    if distributed and process != (0, 1):
        raise DiffjaxError(
            "--distributed finds out what --process-index and --process-count say: "
            "give one or the other."
        )
    share = launched() if distributed else Share(*process)
    if preset is None and options["dataset"] is None:
        raise DiffjaxError(
            "Name a preset, as in `diffjax evaluate cifar10`, or give --dataset."
        )
    if ctx.get_parameter_source("loss") == ParameterSource.DEFAULT:
        options["loss"] = None  # the paper's, if that is asked for
    request = requested(preset, options)
    experiment = request.experiment
    name, out = request.name, out or request.folder(model)
    task = experiment.task(
        options.pop("data_dir"), offline=bool(options["local_files_only"]), run=out
    )
    trackers = [] if dry_run else _trackers(*trackers_asked, experiment, model)

    from diffjax.classify.classifier import DiffusionClassifier
    from diffjax.classify.progress import Progress
    from diffjax.cli.tables import summary_table
    from diffjax.evaluation.bar import Bar

    with loading(console, quiet, f"loading {model}"):
        classifier = DiffusionClassifier.from_pretrained(model, **options)
    request.check(task, classifier, model)
    if dry_run:
        with loading(console, quiet, "timing a few tiles"):
            asked = {**experiment.as_dict(), "save_errors": save_errors}
            found = outlook(task, classifier, out, asked)
        print_json(found.as_dict()) if as_json else stdout.print(outlook_table(found))
        return

    with Bar(console, f"{name} {model}", quiet=quiet) as bar:
        logged = -1

        def watch(now: Progress) -> None:
            nonlocal logged
            bar.show(now)
            due = now.done % LOG_EVERY == 0 or now.done == now.total
            if due and now.done > logged:
                logged = now.done
                for tracker in trackers:
                    tracker.log(now.done, _values(now))

        try:
            result = run_evaluation(
                task,
                classifier,
                out,
                asked=experiment.as_dict(),
                save_errors=save_errors,
                cache=cache,
                share=share,
                progress=Progress(watch=watch),
                opened=partial(keep, n=len(task.indices)),
            )
        except DiffjaxError as error:
            raise DiffjaxError(f"{error}{request.hint(out)}") from error
        finally:
            for tracker in trackers:
                tracker.close()
    if as_json:
        print_json(result)
    else:
        stdout.print(summary_table(result))
    click.echo(f"Run: {out}", err=True)
    if classifier.work.tiles and not quiet:
        click.echo(f"{classifier.work}", err=True)
    if share.count == 1 and (shortfall := read_run(out, errors=False).shortfall):
        raise Failure(shortfall)
    if missing := len(task.indices) - result["images"] - result["failed_images"]:
        click.echo(f"{missing:,} images are left to other processes", err=True)
    if result["failed_images"] and not allow_errors:
        first, reason = failures(read_run(out, errors=False))[0]
        raise Failure(
            f"{result['failed_images']:,} of {len(task.indices):,} images failed; the "
            f"first, {first}: {reason}\nThe same command tries them again; "
            "--allow-errors accepts them."
        )


def _trackers(
    wandb: str | None, tensorboard: Path | None, experiment: "Experiment", model: str
) -> "list[Tracker]":
    from diffjax.evaluation.tracking import tensorboard_tracker, wandb_tracker

    trackers: list[Tracker] = []
    if wandb is not None:
        trackers.append(wandb_tracker(wandb, experiment.as_dict() | {"model": model}))
    if tensorboard is not None:
        trackers.append(tensorboard_tracker(tensorboard))
    return trackers


def _values(now: "Progress") -> dict[str, float]:
    """What is followed; of few images the accuracy once all are done, not before."""
    from diffjax.evaluation.bar import ENOUGH

    accuracy = {}
    if now.judged >= ENOUGH or (now.judged and now.done == now.total):
        accuracy["accuracy"] = (now.correct or 0) / now.judged
    return accuracy | {
        "failed": float(now.failed),
        "evaluations": float(now.evaluations),
    }
