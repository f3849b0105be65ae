"""``diffjax classify`` and ``diffjax demo``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffjax.choices import STRATEGY
from diffjax.cli import demo
from diffjax.cli.completion import files
from diffjax.cli.group import fail, group, loading, print_json, start
from diffjax.cli.mesh import mesh_options, on_mesh
from diffjax.cli.options import (
    checkpoint_options,
    deciding_options,
    device_options,
    image_options,
    loss_option,
    number,
    output_options,
    path,
    prompt_options,
    section,
    seed_option,
    strategies,
    strategy_option,
)
from diffjax.data.prompts import DEFAULT_TEMPLATE, Prompts, split_labels
from diffjax.errors import DiffjaxError

if TYPE_CHECKING:
    from diffjax.classify.record import Record


@group.command(
    usual=(
        *("--labels", "--template", "--prompts", "--strategy", "--loss"),
        *("--temperature", "--model", "--top", "--plot", "--json"),
    ),
    listings=strategies(STRATEGY),
)
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=files
)
@prompt_options
@deciding_options
@image_options
@checkpoint_options
@device_options
@section("device", mesh_options)
@section(
    "output",
    number("--top", "Number of classes to show.", default=10),
    path("--plot", "OUT.png", "Where to draw a picture of the results."),
)
@output_options
def classify(
    images: tuple[str, ...],
    labels: str | None,
    templates: tuple[str, ...],
    prompts_file: str | None,
    model: str,
    top: int,
    plot: Path | None,
    max_pixels: int | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Classify images among labels.

    IMAGE is a path or a URL.

    \b
    diffjax classify cat.jpg --labels cat,dog
    diffjax classify *.jpg --labels cat,dog --model sd-2-base --json > out.jsonl
    """
    console, stdout = start()
    check_picture(plot, len(images))
    template = templates or DEFAULT_TEMPLATE
    choices = read_choices(labels, template, prompts_file)
    with loading(console, quiet):
        from diffjax.cli.batch import classify_all
        from diffjax.cli.tables import legend, ranking_table

    drawn: list[tuple[str, Record]] = []
    shown: list[Record] = []

    def show(image: str, record: "Record") -> None:
        if not shows:
            return
        shown.append(record)
        if as_json:
            print_json({"image": image} | record.as_dict(), indent=None)
        else:
            stdout.print(ranking_table(record, image, top=top), "")
        if plot is not None:
            drawn.append((image, record))

    with on_mesh(options) as shows:
        failures = classify_all(
            images,
            choices,
            template,
            model,
            options,
            show,
            console,
            quiet=quiet or not shows,
            max_pixels=max_pixels,
        )
        if shows and not as_json and len(failures) < len(images):
            stdout.print(legend(shown[0], options["temperature"]))
        draw(plot, drawn)
        fail(failures)


@group.command(
    name="demo",
    usual=(
        *("--strategy", "--loss", "--seed", "--model", "--dtype", "--out"),
        *("--json", "--quiet"),
    ),
    listings=strategies(STRATEGY),
)
@section("deciding", strategy_option, loss_option, seed_option("Seed of the noise."))
@checkpoint_options
@device_options
@section(
    "output",
    path("--out", "OUT.png", "Where the picture goes.", default=demo.PICTURE),
)
@output_options
def demo_command(
    model: str,
    out: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Classify the real images in the package, and draw what happened.

    They are test images of CIFAR-10 and a photograph of a cat; the labels are
    CIFAR-10's ten.
    """
    console, stdout = start()
    truths = {str(path): truth for path, truth in demo.examples().items()}
    check_picture(out, len(truths))
    with loading(console, quiet):
        from diffjax.cli.batch import classify_all
        from diffjax.cli.tables import demo_table

    results: list[tuple[str, Record]] = []
    failures = classify_all(
        list(truths),
        demo.LABELS,
        demo.TEMPLATE,
        model,
        options,
        lambda *result: results.append(result),
        console,
        quiet=quiet,
    )
    rows = [(image, truths[image], record) for image, record in results]
    if as_json:
        for image, truth, record in rows:
            told = {"image": image, "truth": truth} | record.as_dict()
            print_json(told, indent=None)
    else:
        stdout.print(demo_table([(Path(i).stem, t, r) for i, t, r in rows]))
    draw(out, results, truths=[truth for _, truth, _ in rows])
    fail(failures)


def read_choices(
    labels: str | None, template: str | Sequence[str], file: str | None
) -> list[str] | Prompts | None:
    """Read labels or prompts from the options; None if there are none.

    Raises:
        DiffjaxError: If they make no sense, or exclude each other.
    """
    if file is not None:
        if labels is not None or template != DEFAULT_TEMPLATE:
            raise DiffjaxError(
                "A prompts file holds labels and prompts: give --prompts without "
                "--labels and --template."
            )
        return Prompts.read_csv(file)
    if labels is None:
        return None
    names = split_labels(labels)
    Prompts.from_labels(names, template)  # complains now, not after loading
    return names


def check_picture(path: Path | None, n_images: int) -> None:
    """Raise DiffjaxError if a picture was asked for that cannot be drawn."""
    from diffjax.report.plots import check_output, check_rows

    if path is not None:
        check_rows(n_images)
        check_output(path)


def draw(
    path: Path | None, results: "Sequence[tuple[str, Record]]", **truths: Any
) -> None:
    """Draw the results, if a picture was asked for and there are any."""
    from diffjax.report.plots import classification_figure, save_figure

    if path is None or not results:
        return
    names = [Path(image).name for image, _ in results]
    figure = classification_figure([record for _, record in results], names, **truths)
    save_figure(figure, path)
    click.echo(f"Picture: {path}", err=True)
