"""``diffjax winoground``."""

from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from diffjax.cli.completion import folders
from diffjax.cli.group import Failure, group, keep, loading, print_json, start
from diffjax.cli.options import (
    checkpoint_options,
    device_options,
    error_options,
    image_options,
    json_option,
    number,
    path,
    process_options,
    quiet_option,
    section,
    switch,
)
from diffjax.errors import DiffjaxError

ACCESS = ("revision", "cache_dir", "local_files_only")
EPILOG = """\b
Examples:
  diffjax winoground winoground --model sd-2-base --limit 40
  diffjax winoground winoground --model clip:ViT-H-14
  diffjax winoground sugar-crepe/data --images val2017 --model clip:RN50"""


@group.command(
    usual=(
        *("--limit", "--images", "--n-samples", "--loss", "--model", "--dtype"),
        *("--out", "--allow-errors", "--json", "--quiet"),
    ),
    epilog=EPILOG,
)
@click.argument("folder", metavar="DIR", shell_complete=folders)
@section(
    "data",
    number("--limit", "Take so many examples, spread evenly."),
    path("--images", "DIR", "Folder with the images, if not beside the captions."),
)
@image_options
@section(
    "deciding",
    number(
        "--n-samples",
        "Timesteps, evenly spread; the paper's is the default.",
        default=1000,
    ),
)
@error_options
@checkpoint_options
@device_options
@process_options
@section(
    "output",
    path(
        "--out",
        "RUN",
        "Folder of the run; a run that is there goes on.",
        show_default="runs/DIR-MODEL",
    ),
    switch("--allow-errors", "End well even if some images cannot be read."),
    json_option,
    quiet_option,
)
def winoground(
    folder: str,
    images: Path | None,
    n_samples: int,
    limit: int | None,
    max_pixels: int | None,
    model: str,
    out: Path | None,
    allow_errors: bool,
    process_index: int,
    process_count: int,
    distributed: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Match captions and images, of Winoground and other compositional sets.

    DIR holds Winoground, COLA, ARO, SugarCrepe or VALSE as their authors publish them,
    or is one of the files. Of the first two, with two images an example, text, image
    and group scores are reported, of the others how often the right caption fits best;
    overall and by tag, with 95 % intervals. "Normalised" subtracts the errors under the
    empty caption. A model may be clip:NAME too, as for `diffjax baseline`. Every
    example's errors and scores are in the run.
    """
    from diffjax.data.compositional import read_captions

    console, stdout = start()
    examples = read_captions(folder, images)
    if limit is not None and limit < len(examples):
        chosen = (i * len(examples) // limit for i in range(limit))
        examples = tuple(examples[i] for i in chosen)
    with loading(console, quiet, f"loading {model}"):
        from diffjax.evaluation.launchers import share_of

        share = share_of(process_index, process_count, distributed=distributed)
        from diffjax.baselines.naming import KINDS, load_baseline
        from diffjax.classify.classifier import DiffusionClassifier
        from diffjax.classify.progress import Progress
        from diffjax.cli.tables import winoground_table
        from diffjax.evaluation.bar import Bar
        from diffjax.evaluation.captions import CaptionModel, ClipCaptions
        from diffjax.evaluation.winoground import evaluate_winoground
        from diffjax.strategies.exhaustive import Exhaustive

        scorer: CaptionModel | DiffusionClassifier
        if model.partition(":")[0] in KINDS and not Path(model).exists():
            if not model.startswith("clip:"):  # before its weights are asked for
                raise DiffjaxError(f"{model} knows its own classes and no captions.")
            scorer = ClipCaptions(load_baseline(model, **_access(options)))
        else:
            strategy = Exhaustive(n_samples=n_samples)
            scorer = DiffusionClassifier.from_pretrained(
                model, strategy=strategy, **options
            )
    name = Path(folder).resolve().name
    out = out or Path("runs") / f"{name}-{Path(model).name.replace(':', '-')}"
    with Bar(console, f"{name}, text score", quiet=quiet) as bar:
        result = evaluate_winoground(
            examples,
            scorer,
            out,
            name=name,
            max_pixels=max_pixels,
            share=share,
            progress=Progress(watch=bar.show, images_each=len(examples[0].images)),
            opened=partial(keep, n=len(examples)),
        )
    print_json(result) if as_json else stdout.print(winoground_table(result))
    click.echo(f"Run: {out}", err=True)
    if share.count > 1 and result["status"] != "complete":
        missing = len(examples) - result["examples"] - result["failed_examples"]
        click.echo(f"{missing:,} examples are left to other processes", err=True)
    elif result["status"] != "complete":
        raise Failure(
            f"{out} is {result['status']}: not all of {len(examples)} examples are "
            "there. The same command does the others."
        )
    if result["failed_examples"] and not allow_errors:
        raise Failure(
            f"{result['failed_examples']} of {len(examples)} examples failed; the "
            "run's rows say why. The same command tries them again; --allow-errors "
            "accepts them."
        )


def _access(options: dict[str, Any]) -> dict[str, Any]:
    """How the Hub is reached, of options that are otherwise a diffusion model's."""
    context = click.get_current_context()
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("n_samples", *options)
        if name not in ACCESS
        and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise DiffjaxError(f"Only diffusion models take {', '.join(given)}.")
    return {name: options[name] for name in ACCESS}
