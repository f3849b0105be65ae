"""``diffjax robustness``."""

from pathlib import Path

import click

from diffjax.cli import completion
from diffjax.cli.group import group, print_json, start
from diffjax.cli.options import new_file, option, switch

EPILOG = """\b
Example, for a diffusion model and a baseline:
  diffjax evaluate cifar10 --limit 500 --out runs/tiny/clean
  diffjax evaluate cifar10 --limit 500 --corrupt blur:3 --out runs/tiny/blur-3
  diffjax baseline resnet cifar10 --corrupt all --out runs/net
  diffjax robustness runs/tiny/* runs/net/{clean,blur-3} --plot points.png
Of data sets, with ImageNet's images of the same classes:
  diffjax baseline vit:vit_b_16 imagenet --classes imagenet_a --out runs/vit/in
  diffjax baseline vit:vit_b_16 imagenet_a --out runs/vit/a
  diffjax robustness runs/{vit,resnet,dit}/{in,a} --clean imagenet"""


@group.command(epilog=EPILOG)
@click.argument(
    "runs", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.runs
)
@new_file("--plot", "Draw accuracy under shift against clean accuracy.")
@new_file(
    "--csv", "Write the figures, a line a model and kind of shift.", name="csv_file"
)
@option(
    "--clean",
    "DATASET",
    "Data set or preset of the clean images, as imagenet, where runs are of several: "
    "the others, as imagenet_a, are the shifted ones.",
)
@switch("--json", "JSON on standard output.", name="as_json")
def robustness(
    runs: tuple[str, ...],
    plot: Path | None,
    csv_file: Path | None,
    clean: str | None,
    as_json: bool,
) -> None:
    """Compare accuracies on shifted images with those on clean ones.

    RUN is a folder of `diffjax evaluate` or `diffjax baseline`, with and without
    --corrupt; or, with --clean, of several data sets with the same classes. Effective
    robustness is what a model has above the line through the discriminative models, of
    which at least two are needed for it. Outside of their clean accuracies the line is
    an extrapolation.
    """
    _, stdout = start()
    import warnings
    from dataclasses import asdict

    from diffjax.cli.tables import robustness_table
    from diffjax.data.presets import find_preset, is_preset
    from diffjax.files import write_text
    from diffjax.report.plots import check_output, save_figure
    from diffjax.report.shift_plots import robustness_figure
    from diffjax.runs.folder import read_run
    from diffjax.runs.natural import natural_shifts
    from diffjax.runs.outcomes import failures
    from diffjax.runs.robustness import csv_text
    from diffjax.runs.robustness import robustness as compare

    if plot is not None:
        check_output(plot)
    found = [read_run(run, errors=False) for run in runs]
    if clean is None:
        points = compare(found)
    else:
        known = find_preset(clean).dataset if is_preset(clean) else clean
        points = natural_shifts(found, known)
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
