"""``diffjax explain``."""

from math import isnan
from pathlib import Path
from typing import Any

import click

from diffjax.cli.completion import files
from diffjax.cli.group import group, loading, print_json, start
from diffjax.cli.options import (
    checkpoint_options,
    dtype_option,
    error_options,
    image_options,
    number,
    option,
    output_options,
    path,
    section,
    shard_weights_option,
)
from diffjax.data.prompts import DEFAULT_TEMPLATE, split_labels
from diffjax.errors import DiffjaxError


@group.command(
    usual=(
        *("--labels", "--template", "--n-samples", "--loss", "--resolution"),
        *("--model", "--bands", "--out", "--json", "--quiet"),
    )
)
@click.argument("image", metavar="IMAGE", shell_complete=files)
@section(
    "prompts",
    option(
        "--labels",
        "A,B",
        "The label to explain, and another that it is explained against.",
        required=True,
    ),
    option(
        "--template",
        "TEXT",
        "Prompt with a {} for the label.",
        default=DEFAULT_TEMPLATE,
    ),
)
@section(
    "deciding",
    number(
        "--n-samples",
        "Timesteps, even over the schedule; two evaluations each.",
        default=100,
    ),
)
@error_options
@image_options
@checkpoint_options
@section("device", dtype_option, shard_weights_option)
@section(
    "output",
    number(
        "--bands",
        "Groups of neighbouring timesteps with a map each.",
        most=6,
        default=3,
    ),
    path("--out", "OUT.png", "Where the picture goes.", default="explain.png"),
)
@output_options
def explain(
    image: str,
    labels: str,
    template: str,
    n_samples: int,
    bands: int,
    out: Path,
    model: str,
    max_pixels: int | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Draw where in an image the evidence for one label over another lies.

    \b
    diffjax explain cat.jpg --labels cat,dog
    diffjax explain ship.png --labels ship,truck --bands 4 --out ship-truck.png
    """
    console, _ = start()
    console.quiet = quiet
    names = split_labels(labels)
    if len(names) != 2:
        raise DiffjaxError(f"--labels takes two labels, as in cat,dog; not {labels!r}.")
    if bands > n_samples:
        raise DiffjaxError(
            f"{n_samples} samples do not make {bands} bands; ask for fewer --bands or "
            "more --n-samples."
        )
    with loading(console, quiet):
        from diffjax.classify.classifier import DiffusionClassifier
        from diffjax.classify.explanation import explain as explained
        from diffjax.data.images import load_image
        from diffjax.report.heatmaps import explanation_figure
        from diffjax.report.plots import check_output, save_figure

    check_output(out)
    pixels = load_image(image, max_pixels=max_pixels)
    with console.status("evaluating", spinner="line") as status:
        status.update(f"loading {model}")
        classifier = DiffusionClassifier.from_pretrained(model, **options)
        status.update("evaluating")
        found = explained(
            classifier, pixels, *names, template=template, n_samples=n_samples
        )
    save_figure(explanation_figure(found, bands), out)
    if as_json:
        told = {
            "image": image,
            "labels": names,
            "difference": found.difference,
            "bands": [
                {
                    "timesteps": [band.first, band.last],
                    "evidence": band.evidence.tolist(),
                    "standard_error": [
                        # one sample has none
                        [None if isnan(each) else each for each in row]
                        for row in band.standard_error.tolist()
                    ],
                }
                for band in found.bands(bands)
            ],
            **({} if found.limits is None else {"limits": found.limits}),
            "settings": found.settings,
            "picture": str(out),
        }
        print_json(told, indent=None)
    else:
        console.print(f"Wrote {out}.", soft_wrap=True)
