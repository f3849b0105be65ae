"""``diffjax baseline``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffjax.cli import completion
from diffjax.cli.datasets import prompt_files, which_classes, which_images
from diffjax.cli.group import group, keep, loading, print_json, start
from diffjax.cli.options import (
    hub_options,
    json_option,
    max_pixels_option,
    option,
    path,
    quiet_option,
    section,
    switch,
)
from diffjax.errors import DiffjaxError

if TYPE_CHECKING:
    from diffjax.evaluation.experiment import Experiment

ALL = "all"
EPILOG = """\b
Examples:
  diffjax baseline resnet cifar10 --data-dir data
  diffjax baseline runs/resnet/model cifar10 --corrupt all --out runs/shifts
  diffjax baseline clip:ViT-H-14 pets food101 --data-dir data
  diffjax baseline vit:google/vit-base-patch16-224 imagenet imagenet_a"""


@group.command(
    usual=(
        *("--data-dir", "--split", "--limit", "--per-class", "--corrupt"),
        *("--out", "--allow-errors", "--json", "--quiet"),
    ),
    epilog=EPILOG,
)
@click.argument("model", metavar="MODEL", shell_complete=completion.baselines)
@click.argument(
    "datasets",
    metavar="DATASET...",
    nargs=-1,
    required=True,
    shell_complete=completion.presets,
)
@section(
    "data",
    which_images,
    option(
        "--corrupt",
        "KIND:SEVERITY|all",
        "Make the images worse: noise, blur, contrast, jpeg or shift, 1 to 5; all: "
        "clean and in every way, each a run of its own.",
    ),
    max_pixels_option,
)
@section("prompts", prompt_files, which_classes)
@section("model", hub_options)
@section(
    "output",
    path(
        "--out",
        "RUN",
        "Folder of the run, or of the runs; a run that is there goes on.",
        show_default="runs/DATASET-KIND-NAME, or -baseline",
    ),
    switch("--allow-errors", "End well even if some images could not be read."),
    json_option,
    quiet_option,
)
def baseline(
    model: str,
    datasets: tuple[str, ...],
    corrupt: str | None,
    out: Path | None,
    data_dir: str | None,
    allow_errors: bool,
    as_json: bool,
    quiet: bool,
    revision: str | None,
    cache_dir: str | None,
    local_files_only: bool,
    **asked: Any,
) -> None:
    """Evaluate what diffusion models are compared with, as evaluate does these.

    MODEL is KIND:NAME, with clip, vit or resnet for KIND and a folder, a file, a short
    name or a Hugging Face id for NAME, as clip:openai/clip-vit-base-patch32; "resnet",
    which comes with the package; or a folder that `diffjax train resnet` wrote. DATASET
    is a preset, or what the dataset option of evaluate takes. The runs are such as
    `diffjax report` and `diffjax robustness` compare.
    """
    console, stdout = start()
    with loading(console, quiet, f"loading {model}"):
        from diffjax.baselines.naming import load_baseline
        from diffjax.classify.progress import Progress
        from diffjax.cli.tables import summary_table
        from diffjax.evaluation.bar import Bar
        from diffjax.evaluation.baselines import evaluate_baseline

        access = {"revision": revision, "cache_dir": cache_dir}
        loaded = load_baseline(model, local_files_only=local_files_only, **access)
    results = []
    for dataset, place, experiment in _runs(model, datasets, corrupt, out, asked):
        task = experiment.task(data_dir, offline=local_files_only, run=place)
        name = f"{dataset} {experiment.corrupt or ''} {model}".replace("  ", " ")
        with Bar(console, name, quiet=quiet) as bar:
            found = evaluate_baseline(
                task,
                loaded,
                place,
                asked=experiment.as_dict(),
                progress=Progress(watch=bar.show),
                opened=partial(keep, n=len(task.indices)),
            )
        results.append(found)
        if not as_json:
            stdout.print(summary_table(found))
        click.echo(f"Run: {place}", err=True)
    if as_json:
        print_json(results if len(results) > 1 else results[0])
    failed = sum(each["failed_images"] for each in results)
    if failed and not allow_errors:
        raise DiffjaxError(
            f"{failed:,} images failed; the runs' rows say why. The same command tries "
            "them again; --allow-errors accepts them."
        )


def _runs(
    model: str,
    datasets: tuple[str, ...],
    corrupt: str | None,
    out: Path | None,
    asked: dict[str, Any],
) -> "list[tuple[str, Path, Experiment]]":
    """Data set, folder and images of each run."""
    from diffjax.data.corruptions import every_corruption
    from diffjax.data.presets import is_preset
    from diffjax.evaluation.experiment import Experiment, overridden, preset_experiment
    from diffjax.evaluation.request import RUNS, short

    called = short(model) if ":" in model else "baseline"
    runs = []
    for dataset in datasets:
        if is_preset(dataset):
            known = preset_experiment(dataset)
        else:
            known = Experiment(dataset=dataset)
        place = RUNS / f"{short(dataset)}-{called}"
        if out is not None:
            place = out / short(dataset) if len(datasets) > 1 else out
        shifts = {place: corrupt}
        if corrupt == ALL:
            shifts = {place / "clean": None}
            for each in every_corruption():
                shifts[place / str(each).replace(":", "-")] = str(each)
        for folder, how in shifts.items():
            given = asked | {"corrupt": how}
            runs.append((dataset, folder, overridden(known, given)))
    return runs
