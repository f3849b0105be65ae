"""``diffjax robustness``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffjax.cli import completion
from diffjax.cli.group import group, print_json, start
from diffjax.cli.options import AGAIN, choice, new_file, option, switch
from diffjax.errors import DiffjaxError

if TYPE_CHECKING:
    from diffjax.runs.robustness import Point
    from diffjax.runs.run import Run

CLEAN = "imagenet", "imagenet2012"  # of timm's line: the preset and its data set
SHIFTS = "imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch"

EPILOG = """\b
Example, for a diffusion model and a baseline:
  diffjax evaluate cifar10 --limit 500 --out runs/tiny/clean
  diffjax evaluate cifar10 --limit 500 --corrupt blur:3 --out runs/tiny/blur-3
  diffjax baseline resnet cifar10 --corrupt all --out runs/net
  diffjax robustness runs/tiny/* runs/net/{clean,blur-3} --plot points.png
Of data sets, with ImageNet's images of the same classes:
  diffjax baseline vit:vit_b_16 imagenet --classes imagenet_a --out runs/vit/in
  diffjax baseline vit:vit_b_16 imagenet_a --out runs/vit/a
  diffjax robustness runs/{vit,resnet,dit}/{in,a} --clean imagenet
Beside timm's models, runs and accuracies that are known otherwise:
  diffjax robustness runs/dit/{in,a} --line timm --plot points.png
  diffjax robustness --line timm --all-classes --point DiT=79.1,30.2"""


@group.command(epilog=EPILOG)
@click.argument("runs", metavar="[RUN...]", nargs=-1, shell_complete=completion.runs)
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
@choice(
    "--line",
    ["timm"],
    "Whose models the line goes through, instead of those of the runs: timm's, on "
    "ImageNet and its relatives.",
)
@option(
    "--point",
    "NAME=CLEAN,SHIFTED",
    "With --line: accuracies in percent, beside runs or instead of them." + AGAIN,
    multiple=True,
    name="points",
)
@choice(
    "--shift",
    SHIFTS,
    "Data set of the second accuracies of --point.",
    show_default=SHIFTS[1],
)
@switch(
    "--all-classes",
    "The first accuracies of --point are among all 1,000 classes, not among the 200 of "
    "ImageNet-A or -R.",
)
@switch("--json", "JSON on standard output.", name="as_json")
def robustness(
    runs: tuple[str, ...],
    plot: Path | None,
    csv_file: Path | None,
    clean: str | None,
    line: str | None,
    points: tuple[str, ...],
    shift: str | None,
    all_classes: bool,
    as_json: bool,
) -> None:
    """Compare accuracies on shifted images with those on clean ones.

    RUN is a folder of `diffjax evaluate` or `diffjax baseline`, with and without
    --corrupt; or, with --clean, of several data sets with the same classes. Effective
    robustness is what a model has above the line through the discriminative models, of
    which at least two are needed for it, or with --line timm above that of about a
    thousand published ones. Outside of their clean accuracies the line is an
    extrapolation.
    """
    if not runs and not points:
        raise click.UsageError("Missing argument 'RUN...' (or --line and --point).")
    if points and line is None:
        raise DiffjaxError("--point needs --line timm.")
    if (shift or all_classes) and not points:
        raise DiffjaxError("--shift and --all-classes are of --point.")
    if all_classes and runs:
        raise DiffjaxError(
            "--all-classes is for --point alone: a run of ImageNet is among the same "
            "classes as that of the other data set."
        )
    if line is not None and clean not in (None, *CLEAN):
        raise DiffjaxError(
            "timm's line is over accuracies on ImageNet: --clean imagenet."
        )
    _, stdout = start()
    import warnings
    from dataclasses import asdict
    from functools import partial

    from diffjax.cli.tables import robustness_table, standings_table
    from diffjax.files import write_text
    from diffjax.report.plots import check_output, save_figure
    from diffjax.report.shift_plots import published_figure, robustness_figure
    from diffjax.runs.folder import read_run
    from diffjax.runs.outcomes import failures
    from diffjax.runs.published import check_runs, given, parse_given, standings
    from diffjax.runs.robustness import csv_text

    if plot is not None:
        check_output(plot)
    by_hand = [parse_given(each) for each in points]
    found = [read_run(run, errors=False) for run in runs]
    compared: Sequence[Point]
    if line is None:
        compared = _points(found, clean)
        draw = partial(robustness_figure, compared)
        table = partial(robustness_table, compared)
    else:
        check_runs(found)
        among = not all_classes
        known = _points(found, CLEAN[0]) if found else []
        known += [given(*each, shift or SHIFTS[1], among=among) for each in by_hand]
        compared = beside = standings(known, among=among)
        draw = partial(published_figure, beside)
        table = partial(standings_table, beside)
    for run in found:
        if failed := len(failures(run)):
            warnings.warn(
                f"{run.path}: {failed:,} of {len(run.rows):,} images failed; no run of "
                "this model counts them.",
                stacklevel=1,
            )
    if plot is not None:
        save_figure(draw(), plot)
    if csv_file is not None:
        write_text(csv_file, csv_text(compared))
    if as_json:
        print_json([asdict(point) for point in compared])
        return
    stdout.print(table())


def _points(runs: "Sequence[Run]", clean: str | None) -> "list[Point]":
    """The points of runs on images made worse, or of other data sets than ``clean``."""
    from diffjax.data.presets import find_preset, is_preset
    from diffjax.runs.natural import natural_shifts
    from diffjax.runs.robustness import robustness as compare

    if clean is None:
        return compare(runs)
    known = find_preset(clean).dataset if is_preset(clean) else clean
    return natural_shifts(runs, known)
