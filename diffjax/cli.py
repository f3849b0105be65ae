"""The command line: parse, build one config, call one function.

Whatever is slow to import is imported inside the commands, so that ``--help`` answers
at once.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffjax import __version__, demo
from diffjax.data.prompts import DEFAULT_TEMPLATE, Prompts
from diffjax.errors import DiffjaxError
from diffjax.options import (
    checkpoint_options,
    image_options,
    model_option,
    output_options,
    scoring_options,
)
from diffjax.training.recipes import RECIPES

if TYPE_CHECKING:
    from rich.console import Console

    from diffjax.evaluation.batch import Classified

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Failure(click.ClickException):
    """Bad input: one message, no traceback."""

    exit_code = EXIT_BAD_INPUT

    def show(self, file: Any = None) -> None:
        """Print the message."""
        click.echo(f"error: {self.message}", file=file or sys.stderr)


class Commands(click.Group):
    """Commands whose known exceptions become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except DiffjaxError as error:
            raise Failure(str(error)) from error
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)


def main() -> None:
    """Run the command line in a process of its own."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # "PyTorch not found"
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        commands(prog_name="diffjax")
    except SystemExit as stop:
        if stop.code != EXIT_INTERRUPTED:
            raise
        # not through the interpreter's end: it crashes when JAX is still computing
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diffjax")
def commands() -> None:
    """Classify images with a pretrained diffusion model, in JAX.

    \b
    diffjax demo                                  a few real images, right away
    diffjax classify cat.jpg --labels cat,dog     your own
    """


@commands.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--labels",
    metavar="A,B,...",
    help="Classes to choose from. Class-conditional models take all their own if there "
    "are none.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT",
    help="Prompt with a {} for the label; several are allowed.  "
    f"[{DEFAULT_TEMPLATE!r}]",
)
@click.option(
    "--prompts",
    "prompts_file",
    metavar="FILE.csv",
    help="Prompts instead of labels: columns prompt, classname, classidx.",
)
@click.option(
    "--merge",
    type=click.Choice(["compete", "mean"]),
    default="compete",
    show_default=True,
    help="Of several prompts of a class, the best counts; or take the mean of their "
    "text states.",
)
@scoring_options
@click.option(
    "--noise",
    default="image",
    show_default=True,
    metavar="image|shared|FILE",
    help="Each image's own, one for all, or an npy, npz or safetensors file.",
)
@click.option(
    "--temperature",
    type=float,
    help="Of the scores, in units of the error; it does not change the order.",
)
@click.option("--cells", type=int, help="Evaluations in one call of the device.")
@image_options
@checkpoint_options
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Classes to show.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="OUT.png", help="Draw a picture."
)
@output_options
def classify(
    images: tuple[str, ...],
    labels: str | None,
    templates: tuple[str, ...],
    prompts_file: str | None,
    model: str,
    strategy: str | None,
    temperature: float | None,
    top: int,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Classify images among labels.

    IMAGE is a path or a URL.

    \b
    diffjax classify cat.jpg --labels cat,dog
    diffjax classify *.jpg --labels cat,dog --model sd-2-base --json > out.json
    """
    console, stdout = start()
    check_picture(plot, len(images))
    prompts = read_prompts(labels, templates, prompts_file)
    options |= read_strategy(strategy)
    if temperature is not None:
        options["temperature"] = temperature
    with loading(console, quiet):
        from diffjax.evaluation.batch import Classified, Task, run_batch
        from diffjax.evaluation.tables import legend, ranking_table

    def show(item: Classified) -> None:
        if not as_json:
            table = ranking_table(item.record, item.source, top=top, first=item.first)
            stdout.print(table, "")

    task = Task(model=model, options=options, prompts=prompts, templates=templates)
    results, failures = run_batch(images, task, console, quiet=quiet, show=show)
    if as_json:
        print_json([{"image": r.source} | r.record.as_dict() for r in results])
    elif results:
        stdout.print(legend(results[0].record.temperature))
    draw(plot, results)
    fail(failures)


@commands.command(name="demo")
@model_option
@scoring_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=demo.PICTURE,
    show_default=True,
    metavar="PICTURE.png",
    help="Where the picture goes.",
)
@output_options
def demo_command(
    model: str,
    strategy: str | None,
    out: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Classify the real images in the package, and draw what happened.

    They are test images of CIFAR-10 and a photograph of a cat; the labels are
    CIFAR-10's ten.
    """
    examples = demo.examples()
    check_picture(out, len(examples))
    options |= read_strategy(strategy or demo.STRATEGY)
    console, stdout = start()
    with loading(console, quiet):
        from diffjax.evaluation.batch import Task, run_batch
        from diffjax.evaluation.tables import demo_table

    task = Task(
        model=model,
        options=options,
        prompts=Prompts.from_labels(demo.LABELS, demo.TEMPLATE),
    )
    truths = {str(example.path): example.truth for example in examples}
    results, failures = run_batch(list(truths), task, console, quiet=quiet)
    rows = [(Path(r.source), truths[r.source], r.record) for r in results]
    if as_json:
        entries = [{"image": str(i), "truth": t} | r.as_dict() for i, t, r in rows]
        print_json(entries)
    else:
        stdout.print(demo_table([(i.stem, t, r) for i, t, r in rows]))
    draw(out, results, truths=[truth for _, truth, _ in rows])
    fail(failures)


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
def models(as_json: bool) -> None:
    """List the models that --model knows by name."""
    from diffjax.checkpoints.catalog import MODELS

    if as_json:
        print_json([asdict(model) for model in MODELS.values()])
        return
    from diffjax.evaluation.tables import models_table

    start()[1].print(models_table(list(MODELS.values())))


def list_recipes(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the recipes instead of running the command."""
    if wanted:
        for recipe in RECIPES.values():
            click.echo(f"{recipe.name}: {recipe.summary}")
        ctx.exit()


@commands.command(epilog=f"Recipes: {', '.join(RECIPES)}.")
@click.argument("recipe", type=click.Choice(list(RECIPES)), metavar="RECIPE")
@click.option(
    "--data-dir",
    metavar="DIR",
    help="Where prepared data sets are.  [TFDS_DATA_DIR or ~/tensorflow_datasets]",
)
@click.option("--out", required=True, metavar="RUN", help="The run's folder.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Of initial weights, batches and noise.",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Whether an interrupted run in RUN goes on.",
)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=list_recipes,
    help="List the recipes.",
)
def train(
    recipe: str,
    data_dir: str | None,
    out: str,
    steps: int | None,
    seed: int,
    resume: bool,
) -> None:
    """Train a small model; the result is the checkpoint RUN/model."""
    console, _ = start()
    with loading(console, quiet=False):
        from diffjax.training.loop import run_training

    folder = run_training(recipe, data_dir, out, steps=steps, seed=seed, resume=resume)
    click.echo(str(folder))


def start() -> "tuple[Console, Console]":
    """Consoles on standard error and output; from here warnings are shown as notes."""
    from rich.console import Console

    from diffjax.terminal import notes

    console = Console(stderr=True)
    click.get_current_context().with_resource(notes(console))
    return console, Console()


@contextlib.contextmanager
def loading(console: "Console", quiet: bool) -> Iterator[None]:
    """A sign of life while JAX is imported."""
    from diffjax.terminal import keep_compilations

    keep_compilations(console)
    with contextlib.nullcontext() if quiet else console.status("starting JAX"):
        yield


def read_prompts(
    labels: str | None, templates: Sequence[str], file: str | None
) -> Prompts | None:
    """Prompts from the options; None if there are none.

    Raises:
        DiffjaxError: if they make no sense, or exclude each other.
    """
    if file is not None:
        if labels is not None or templates:
            raise DiffjaxError(
                "A prompts file holds labels and prompts: give --prompts without "
                "--labels and --template."
            )
        return Prompts.read_csv(file)
    if labels is None:
        return None
    names = [label.strip() for label in labels.split(",")] if labels.strip() else []
    return Prompts.from_labels(names, templates or DEFAULT_TEMPLATE)


def read_strategy(text: str | None) -> dict[str, Any]:
    """The argument that a strategy's text stands for, if there is any."""
    from diffjax.strategies import parse_strategy

    return {} if text is None else {"strategy": parse_strategy(text)}


def check_picture(path: Path | None, n_images: int) -> None:
    """Raise DiffjaxError if a picture was asked for that cannot be drawn."""
    from diffjax.evaluation.plots import check_output, check_rows

    if path is not None:
        check_rows(n_images)
        check_output(path)


def draw(path: Path | None, results: "Sequence[Classified]", **truths: Any) -> None:
    """Draw the results, if a picture was asked for and there are any."""
    from diffjax.evaluation.plots import classification_figure, save_figure

    if path is None or not results:
        return
    figure = classification_figure(
        [r.record for r in results],
        [r.pixels for r in results],
        [Path(r.source).name for r in results],
        **truths,
    )
    save_figure(figure, path)
    click.echo(f"Picture: {path}", err=True)


def print_json(value: Any) -> None:
    """JSON on standard output, and nothing else there."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def fail(failures: Sequence[str]) -> None:
    """After everything else: report the images that failed, if any."""
    if failures:
        raise Failure("\nerror: ".join(failures))
