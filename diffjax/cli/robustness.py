"""``diffjax baseline`` and ``diffjax robustness``."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from diffjax.cli import completion
from diffjax.cli.datasets import which_classes, which_images
from diffjax.cli.group import group, keep, loading, print_json, start
from diffjax.cli.options import (
    json_option,
    max_pixels_option,
    new_file,
    option,
    path,
    quiet_option,
    section,
    switch,
)
from diffjax.errors import DiffjaxError

ALL = "all"
BASELINE_EPILOG = """\b
Examples:
  diffjax baseline resnet cifar10 --data-dir data
  diffjax baseline runs/resnet/model cifar10 --corrupt all --out runs/shifts"""
ROBUSTNESS_EPILOG = """\b
Example, for a diffusion model and a baseline:
  diffjax evaluate cifar10 --limit 500 --out runs/tiny/clean
  diffjax evaluate cifar10 --limit 500 --corrupt blur:3 --out runs/tiny/blur-3
  diffjax baseline resnet cifar10 --corrupt all --out runs/net
  diffjax robustness runs/tiny/* runs/net/{clean,blur-3} --plot points.png"""


@group.command(
    usual=(
        *("--data-dir", "--split", "--limit", "--per-class", "--corrupt"),
        *("--out", "--allow-errors", "--json", "--quiet"),
    ),
    epilog=BASELINE_EPILOG,
)
@click.argument("model", metavar="MODEL", shell_complete=completion.baselines)
@click.argument("dataset", metavar="DATASET", shell_complete=completion.datasets)
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
@section("prompts", which_classes)
@section(
    "output",
    path(
        "--out",
        "RUN",
        "Folder of the run, or of the runs; a run that is there goes on.",
        show_default="runs/DATASET-baseline",
    ),
    switch("--allow-errors", "End well even if some images could not be read."),
    json_option,
    quiet_option,
)
def baseline(
    model: str,
    dataset: str,
    corrupt: str | None,
    out: Path | None,
    data_dir: str | None,
    allow_errors: bool,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Evaluate a trained discriminative classifier, as evaluate does a diffusion model.

    MODEL is "resnet", which comes with the package, or a folder that `diffjax train
    resnet` wrote. The runs are such as `diffjax report` and `diffjax robustness`
    compare.
    """
    console, stdout = start()
    with loading(console, quiet):
        from diffjax.baselines.classifier import load_classifier
        from diffjax.classify.progress import Progress
        from diffjax.cli.tables import summary_table
        from diffjax.data.corruptions import every_corruption
        from diffjax.evaluation.bar import Bar
        from diffjax.evaluation.baselines import evaluate_baseline
        from diffjax.evaluation.experiment import Experiment

        classifier = load_classifier(model)
    out = out or Path("runs") / f"{Path(dataset).name}-baseline"
    places: dict[Path, str | None] = {out: corrupt}
    if corrupt == ALL:
        places = {out / "clean": None}
        for each in every_corruption():
            places[out / str(each).replace(":", "-")] = str(each)
    results = []
    for place, how in places.items():
        experiment = Experiment(dataset=dataset, corrupt=how, **asked)
        task = experiment.task(data_dir, run=place)
        name = f"{dataset} {how or ''} {model}".replace("  ", " ")
        with Bar(console, name, quiet=quiet) as bar:
            found = evaluate_baseline(
                task,
                classifier,
                place,
                asked=experiment.as_dict(),
                progress=Progress(watch=bar.show),
                opened=partial(keep, n=len(task.indices)),
            )
        results.append(found)
        if not as_json:
            stdout.print(summary_table(found))
    if as_json:
        print_json(results if corrupt == ALL else results[0])
    click.echo(f"Run: {out}", err=True)
    failed = sum(each["failed_images"] for each in results)
    if failed and not allow_errors:
        raise DiffjaxError(
            f"{failed:,} images failed; the runs' rows say why. The same command tries "
            "them again; --allow-errors accepts them."
        )


@group.command(epilog=ROBUSTNESS_EPILOG)
@click.argument(
    "runs", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.runs
)
@new_file("--plot", "Draw accuracy under shift against clean accuracy.")
@new_file(
    "--csv", "Write the figures, a line a model and kind of shift.", name="csv_file"
)
@switch("--json", "JSON on standard output.", name="as_json")
def robustness(
    runs: tuple[str, ...], plot: Path | None, csv_file: Path | None, as_json: bool
) -> None:
    """Compare accuracies on shifted images with those on clean ones.

    RUN is a folder of `diffjax evaluate` or `diffjax baseline`, with and without
    --corrupt. Effective robustness is what a model has above the line through the
    discriminative models, of which at least two are needed for it. Outside of their
    clean accuracies the line is an extrapolation.
    """
    _, stdout = start()
    import warnings
    from dataclasses import asdict

    from diffjax.cli.tables import robustness_table
    from diffjax.files import write_text
    from diffjax.report.plots import check_output, save_figure
    from diffjax.report.shift_plots import robustness_figure
    from diffjax.runs.folder import read_run
    from diffjax.runs.outcomes import failures
    from diffjax.runs.robustness import csv_text
    from diffjax.runs.robustness import robustness as compare

    if plot is not None:
        check_output(plot)
    found = [read_run(run, errors=False) for run in runs]
    points = compare(found)
    for run in found:
        if failed := len(failures(run)):
            warnings.warn(
                f"{run.path}: {failed:,} of {len(run.rows):,} images failed; no run of "
                "this model counts them.",
                stacklevel=1,
            )
    if plot is not None:
        save_figure(robustness_figure(points), plot)
    if csv_file is not None:
        write_text(csv_file, csv_text(points))
    if as_json:
        print_json([asdict(point) for point in points])
        return
    stdout.print(robustness_table(points))
