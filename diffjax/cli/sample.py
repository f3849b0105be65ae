"""``diffjax sample``."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffjax.cli import completion
from diffjax.cli.group import group, keep, loading, print_json, start
from diffjax.cli.options import (
    Decorator,
    dtype_option,
    json_option,
    model_option,
    new_file,
    number,
    option,
    part_options,
    path,
    quiet_option,
    section,
    seed_option,
    shard_weights_option,
    switch,
)
from diffjax.data.prompts import DEFAULT_TEMPLATE, split_labels
from diffjax.errors import DiffjaxError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from diffjax.evaluation.sampling import Drawing, Sampler

COLUMNS, MOST_ROWS = 10, 50  # of a sheet
EPILOG = """\b
Examples:
  diffjax sample --labels cat,dog --per-class 10 --out cats --sheet cats.png
  diffjax sample cifar10 --model tiny --per-class 1000 --steps 20 --out drawn
  diffjax sample --model dit-256 --per-class 50 --out imagenet-drawn --dry-run
  diffjax train resnet --data drawn --out runs/resnet-drawn
"""


def without(name: str, options: Decorator) -> Decorator:
    """Make the same decorator less one option, which a command says in its own way."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = options(command)
        known = vars(command)["__click_params__"]
        known[:] = [each for each in known if each.name != name]
        return command

    return decorate


@group.command(
    usual=(
        *("--labels", "--template", "--model", "--per-class", "--steps"),
        *("--guidance", "--seed", "--out", "--sheet", "--dry-run"),
    ),
    epilog=EPILOG,
)
@click.argument(
    "preset", required=False, metavar="[PRESET]", shell_complete=completion.presets
)
@section(
    "prompts",
    option(
        "--labels",
        "A,B,...",
        "Classes to draw; a name with a comma goes in double quotes. Without them a "
        "class-conditional model draws all of its own.",
    ),
    option(
        "--template",
        "TEXT",
        "Prompt with a {} for the label; may be given several times, to be taken in "
        "turn.",
        name="templates",
        multiple=True,
        show_default=DEFAULT_TEMPLATE,
    ),
    option(
        "--prompts",
        "FILE.csv|NAME",
        "Prompts instead of labels: columns prompt, classname, classidx; or a "
        "preset's.",
        shell_complete=completion.prompts,
    ),
)
@section(
    "drawing",
    number(
        "--per-class", "Images of each class; more of them add to a folder.", default=10
    ),
    number(
        "--steps", "Steps from noise to image.", show_default="the family's, 4 to 50"
    ),
    option(
        "--guidance",
        "X",
        "Scale of classifier-free guidance, 1 for none; what FLUX.1 dev is told.",
        type=float,
        show_default="the family's: 7.5 of Stable Diffusion 1 and 2, 4 of DiT",
    ),
    seed_option("Seed of the noise."),
    number("--resolution", "Pixels along an edge.", show_default="the model's"),
)
@section("model", model_option)
@without("guidance", part_options)
@section(
    "device",
    dtype_option,
    number(
        "--batch", "Images at once, on all devices.", show_default="what memory holds"
    ),
    shard_weights_option,
)
@section(
    "output",
    path(
        "--out",
        "DIR",
        "Folder of the images, a folder a class; one that is there goes on.",
        required=True,
    ),
    new_file("--sheet", "PNG with the first images of each class, to look at."),
    switch("--dry-run", "Print what it would take; one step is timed."),
    json_option,
    quiet_option,
)
def sample(
    preset: str | None,
    labels: str | None,
    templates: tuple[str, ...],
    prompts: str | None,
    per_class: int,
    steps: int | None,
    guidance: float | None,
    batch: int | None,
    model: str,
    out: Path,
    sheet: Path | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Draw images of classes with a diffusion model.

    Classes are those of PRESET, of --labels or of --prompts. Images go to a folder a
    class, prompts.csv beside these says what each shows. DDIM draws them, or Euler's
    method where the model is a flow. An image is decided by seed, class and number
    alone; the same command goes on where it was stopped.
    """
    console, stdout = start()
    given = [preset, labels, prompts]
    if sum(each is not None for each in given) > 1 or (templates and labels is None):
        raise DiffjaxError(
            "PRESET, --labels and --prompts exclude each other, and --template is of "
            "--labels."
        )
    names = None if labels is None else split_labels(labels)
    with loading(console, quiet):
        from diffjax.classify.classifier import DiffusionClassifier
        from diffjax.data.sheets import check_sheet
        from diffjax.evaluation.sampling import Sampler, draw_folder
        from diffjax.evaluation.sampling import outlook as outlook_of
        from diffjax.evaluation.subjects import asked_prompts, subjects_of
    if sheet is not None:
        check_sheet(sheet)
    asked = names if names is not None else asked_prompts(preset, prompts)
    with loading(console, quiet, f"loading {model}"):
        classifier = DiffusionClassifier.from_pretrained(model, **options)
        subjects = subjects_of(classifier.model, asked, templates or DEFAULT_TEMPLATE)
        settings: dict[str, Any] = {"steps": steps, "guidance": guidance}
        sampler = Sampler(classifier, subjects, batch=batch, **settings)
        folder = sampler.open(out)
    if dry_run:
        with loading(console, quiet, "timing a step"):
            found = outlook_of(sampler, folder, per_class)
        if as_json:
            print_json(told(sampler, out) | found.as_dict())
        else:
            stdout.print(outlook_table(sampler, found, out))
        return
    from diffjax.classify.progress import Progress
    from diffjax.evaluation.bar import Bar

    n = len(subjects.names) * per_class
    keep(folder, n)
    with Bar(console, f"{out.name} {model}", quiet=quiet) as bar:
        draw_folder(sampler, folder, per_class, Progress(watch=bar.show))
    if sheet is not None:
        draw_sheet(folder.rows(min(COLUMNS, per_class), MOST_ROWS), sheet)
        more = len(subjects.names) - MOST_ROWS
        left = f" (the first {MOST_ROWS} classes)" if more > 0 else ""
        click.echo(f"Sheet: {sheet}{left}", err=True)
    if as_json:
        print_json(told(sampler, out) | {"images": n})
    else:
        stdout.print(f"{n:,} images in {out}", highlight=False, soft_wrap=True)


def draw_sheet(rows: Any, path: Path) -> None:
    """Write a contact sheet."""
    from diffjax.data.sheets import named_sheet, save_png

    save_png(named_sheet(rows), path)


def told(sampler: "Sampler", out: Path) -> dict[str, Any]:
    """What is drawn and how, plain JSON values."""
    return {
        "out": str(out),
        "model": sampler.model.name,
        "classes": len(sampler.subjects.names),
        **sampler.settings,
        "evaluations_per_image": sampler.evaluations,
    }


def outlook_table(sampler: "Sampler", found: "Drawing", out: Path) -> "RenderableType":
    """Show what drawing would take."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    subjects, settings = sampler.subjects, sampler.settings
    rows = subjects.rows
    prompts = repr(rows[0]) if subjects.ids is None else "class ids of the model"
    if subjects.ids is None and len(rows) > 1:
        prompts += f" and {len(rows) - 1:,} more"
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    left = found.images - found.done
    seconds = left * found.seconds_per_image
    how = f"{settings['steps']} of {settings['sampling']['method']}"
    done = f", {found.done:,} of them done" if found.done else ""
    for name, text in (
        ("model", sampler.model.name),
        ("prompts", prompts),
        ("classes", f"{len(subjects.names):,}"),
        ("images", f"{found.images:,}{done}"),
        ("steps", f"{how}, guidance {settings['guidance']:g}"),
        ("evaluations", f"{found.evaluations_per_image:,} an image"),
        ("FLOPs", f"{found.flops_per_image:.3g} an image"),
        ("batch", f"{found.batch:,} images on {found.device}"),
        ("time", f"{found.seconds_per_image:.2g} s an image, {_time(seconds)} in all"),
        ("folder", str(out)),
    ):
        table.add_row(name, Text(text))
    note = "Timed on one step; decoding and writing the images comes on top."
    return Group(table, "", Text(note, style="dim"))


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
