"""``diffjax audit``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffjax.choices import AESTHETIC_HEADS, FILTERS
from diffjax.cli import completion
from diffjax.cli.datasets import which_classes, which_images
from diffjax.cli.group import Failure, group, keep, loading, print_json, start
from diffjax.cli.options import (
    choice,
    hub_options,
    json_option,
    max_pixels_option,
    number,
    option,
    path,
    quiet_option,
    section,
    switch,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from diffjax.evaluation.audit import Judges
    from diffjax.evaluation.experiment import Experiment

AUDITS = Path("audits")
EPILOG = """\b
Examples:
  diffjax audit pets --data-dir data
  diffjax audit pets food101 stl10 --data-dir data --json > table2.json
  diffjax audit cifar10 --filter size
  diffjax audit ./photos --min-aesthetic 5 --clip ./clip-vit-large-patch14"""


@group.command(
    usual=(
        *("--data-dir", "--limit", "--filter", "--min-size", "--min-aesthetic"),
        *("--max-unsafe", "--detector", "--out", "--json", "--quiet"),
    ),
    epilog=EPILOG,
)
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
    which_classes,
    option("--image-column", "NAME", "Column of images, where hf: has several."),
    option("--label-column", "NAME", "Column of labels, where hf: has several."),
    max_pixels_option,
)
@section(
    "deciding",
    choice(
        "--filter",
        FILTERS,
        "A filter to try. May be repeated; all three by default.",
        name="filters",
        multiple=True,
    ),
    number("--min-size", "Pixels that the shorter side must have.", default=512),
    option(
        "--min-aesthetic",
        "X",
        "Aesthetic score that an image must have.",
        type=float,
        default=4.5,
    ),
    option(
        "--max-unsafe",
        "P",
        "Probability of being unsafe below which an image must be.",
        type=float,
        default=0.1,
    ),
)
@section(
    "model",
    option(
        "--clip",
        "NAME",
        "CLIP whose features the heads take, as baseline's clip:NAME: OpenAI's "
        "ViT-L-14, for LAION's.",
        default="ViT-L-14",
    ),
    option(
        "--aesthetic-head",
        "NAME|FILE",
        f"{' or '.join(AESTHETIC_HEADS)}: LAION's second and first version; or a file "
        "of such weights.",
        default=AESTHETIC_HEADS[0],
        show_default=f"{AESTHETIC_HEADS[0]}, of Stable Diffusion 2",
    ),
    option(
        "--detector",
        "FILE.zip",
        "LAION's detector of unsafe images, as published.",
        show_default="clip_autokeras_binary_nsfw.zip in --data-dir",
    ),
    hub_options,
)
@section(
    "output",
    path(
        "--out",
        "DIR",
        "Folder of the table of images, or of those of several data sets; what is "
        "there goes on.",
        show_default="audits/DATASET",
    ),
    switch("--allow-errors", "End well even if some images could not be read."),
    json_option,
    quiet_option,
)
def audit(
    datasets: tuple[str, ...],
    filters: tuple[str, ...],
    min_size: int,
    min_aesthetic: float,
    max_unsafe: float,
    clip: str,
    aesthetic_head: str,
    detector: str | None,
    out: Path | None,
    data_dir: str | None,
    revision: str | None,
    cache_dir: str | None,
    local_files_only: bool,
    allow_errors: bool,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Say how much of a data set Stable Diffusion 2's training filters take away.

    DATASET is a preset, or what the dataset option of evaluate takes. An image is left
    if its shorter side has 512 pixels, LAION's aesthetic score is at least 4.5, and its
    detector finds it unsafe with a probability below 0.1. The figures of each image are
    saved, so that other limits take no time.
    """
    console, stdout = start()
    with loading(console, quiet, f"loading {clip}"):
        from functools import partial

        from diffjax.classify.progress import Progress
        from diffjax.evaluation.audit import audit as judge
        from diffjax.evaluation.bar import Bar
        from diffjax.evaluation.request import short
        from diffjax.runs.audit import Limits

        limits = Limits(size=min_size, aesthetic=min_aesthetic, unsafe=max_unsafe)
        access = {"revision": revision, "cache_dir": cache_dir}
        chosen = [name for name in FILTERS if name in (filters or FILTERS)]
        judges = _judges(
            chosen,
            clip,
            aesthetic_head,
            detector,
            data_dir,
            access | {"local_files_only": local_files_only},
        )
    results = []
    for dataset in datasets:
        place = AUDITS / short(dataset)
        if out is not None:
            place = out / short(dataset) if len(datasets) > 1 else out
        task = _experiment(dataset, asked).task(data_dir, offline=local_files_only)
        with Bar(console, f"{dataset} audit", quiet=quiet) as bar:
            found = judge(
                task,
                judges,
                place,
                filters=chosen,
                limits=limits,
                progress=Progress(watch=bar.show),
                opened=partial(keep, n=len(task.indices)),
            )
        results.append(found)
        if not as_json:
            stdout.print(audit_table(found))
        click.echo(f"Images: {place / 'images.csv'}", err=True)
    if as_json:
        print_json(results if len(results) > 1 else results[0])
    failed = sum(each["result"]["failed_images"] for each in results)
    if failed and not allow_errors:
        raise Failure(
            f"{failed:,} images failed; the tables say why. The same command tries "
            "them again; --allow-errors accepts them."
        )


def audit_table(found: "Mapping[str, Any]") -> "RenderableType":
    """Show what each filter takes away, and filters together."""
    from rich.console import Group
    from rich.text import Text

    from diffjax.cli.columns import Column, FittingTable

    data, result = found["data"], found["result"]
    limits = result["limits"]
    table = FittingTable(
        columns=(
            Column(title="filter", justify="left"),
            Column(title="leaves", justify="left", goes=2),
            Column(title="taken away"),
            Column(title="95 %", goes=1),
            Column(title="left"),
        )
    )
    words = {"size": "≥ {} pixels", "aesthetic": "≥ {:g}", "unsafe": "< {:g}"}
    for names, each in result["filters"].items():
        alone = names in words
        low, high = each["interval"]
        table.add_row(
            names.replace("+", " + "),
            words[names].format(limits[names]) if alone else "",
            f"{each['share']:.1%}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{1 - each['share']:.1%}",
            style="" if alone else "bold",
        )
    failed = result["failed_images"]
    rest = f", {failed:,} more failed" if failed else ""
    title = f"{data['name']} {data['split']} · {result['images']:,} images{rest}"
    return Group(Text(title, style="bold"), table)


def _judges(
    filters: "Sequence[str]",
    clip: str,
    head: str,
    detector: str | None,
    data_dir: str | None,
    access: dict[str, Any],
) -> "Judges":
    """Load what judges, the small files first: what is missing is told at once."""
    from diffjax.checkpoints.heads import DETECTOR, load_aesthetic, load_detector
    from diffjax.data.sources import data_root
    from diffjax.evaluation.audit import Head, Judges

    heads: dict[str, Head] = {}
    if "aesthetic" in filters:
        heads["aesthetic"] = load_aesthetic(head)
    if "unsafe" in filters:
        heads["unsafe"] = load_detector(detector or data_root(data_dir) / DETECTOR)
    if not heads:
        return Judges()
    from diffjax.baselines.clip import load_clip

    return Judges(clip=load_clip(clip, **access), heads=heads)


def _experiment(dataset: str, asked: dict[str, Any]) -> "Experiment":
    from diffjax.data.presets import is_preset
    from diffjax.evaluation.experiment import Experiment, overridden, preset_experiment

    known = (
        preset_experiment(dataset)
        if is_preset(dataset)
        else Experiment(dataset=dataset)
    )
    return overridden(known, asked)
