"""``diffjax evaluate``."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from diffjax.choices import LOSSES, STRATEGY
from diffjax.cli import completion
from diffjax.cli.datasets import class_options, data_options
from diffjax.cli.group import group, loading, start
from diffjax.cli.jobs import Session, jobs_of, run_all, run_one
from diffjax.cli.options import (
    choice,
    device_options,
    json_option,
    models_option,
    option,
    part_options,
    path,
    process_options,
    quiet_option,
    score_options,
    section,
    strategies,
    strategies_option,
    switch,
)
from diffjax.data.presets import PRESETS, Preset


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
  diffjax evaluate cifar10 pets --model sd-1.5 --model sd-2-base --limit 200
  diffjax evaluate --dataset ./photos --template "a photo of a {}."
"""
run_options = section(
    "output",
    path(
        "--out",
        "RUN",
        "Folder of the run; a run that is there goes on. Of several, where their "
        "folders go.",
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
    "presets",
    nargs=-1,
    metavar="[PRESET]...",
    shell_complete=completion.presets,
)
@data_options
@class_options
@section("deciding", strategies_option)
@score_options
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
@section("model", models_option)
@part_options
@device_options
@process_options
@run_options
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    presets: tuple[str, ...],
    dry_run: bool,
    out: Path | None,
    process_index: int,
    process_count: int,
    distributed: bool,
    **options: Any,
) -> None:
    """Evaluate models on data sets.

    PRESET is a data set with all of its settings; what is given besides takes their
    place. The run goes to a folder; the same command again goes on where it stopped.

    Of several presets (or --dataset), --model and --strategy every combination is a
    run, in a folder of its own: runs/DATASET-MODEL-STRATEGY.
    """
    console, stdout = start()
    names = (field.name for field in fields(Session))
    shared = {name: options.pop(name) for name in names if name in options}
    with loading(console, shared["quiet"]):
        from diffjax.evaluation.launchers import share_of
    share = share_of(process_index, process_count, distributed=distributed)
    if ctx.get_parameter_source("loss") == ParameterSource.DEFAULT:
        options["loss"] = None  # the paper's, if that is asked for
    jobs = jobs_of(presets, options, out)
    session = Session(
        console=console, stdout=stdout, share=share, several=len(jobs) > 1, **shared
    )
    if len(jobs) == 1:
        run_one(session, jobs[0], dry_run=dry_run)
    else:
        run_all(session, jobs, dry_run=dry_run)
