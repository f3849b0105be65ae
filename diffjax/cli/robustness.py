"""``diffjax robustness``."""

from pathlib import Path

import click

from diffjax.cli import completion
from diffjax.cli.group import group, print_json, start
from diffjax.cli.options import new_file, switch

EPILOG = """\b
Example, for a diffusion model and a baseline:
  diffjax evaluate cifar10 --limit 500 --out runs/tiny/clean
  diffjax evaluate cifar10 --limit 500 --corrupt blur:3 --out runs/tiny/blur-3
  diffjax baseline resnet cifar10 --corrupt all --out runs/net
  diffjax robustness runs/tiny/* runs/net/{clean,blur-3} --plot points.png"""


@group.command(epilog=EPILOG)
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
