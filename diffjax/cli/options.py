"""Options of the commands, in the groups of their help; see ``cli/help.py``."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from diffjax.choices import (
    DTYPES,
    INTERPOLATIONS,
    LOSSES,
    MAX_SEED,
    MERGES,
    SHARD_WEIGHTS,
    SPACES,
    STRATEGY,
    TEMPERATURE,
    TRANSFORMS,
)
from diffjax.cli import completion
from diffjax.cli.completion import files
from diffjax.cli.help import SECTIONS, Option, Rows
from diffjax.data.prompts import DEFAULT_TEMPLATE

PLACES = {"PATH", "FILE", "DIR"}  # metavars of what the shell completes

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

ELSEWHERE = "from another folder, id or file of weights."
AGAIN = " May be repeated."


def option(flag: str, metavar: str | None, help: str, **more: Any) -> Decorator:
    """An option; ``short`` and ``name`` are further names, the default is shown."""
    names = [more.pop(key) for key in ("short", "name") if key in more]
    if metavar and "type" not in more and PLACES & set(re.split(r"\W", metavar)):
        more.setdefault("shell_complete", files)
    if "default" in more:
        more.setdefault("show_default", True)
    return click.option(flag, *names, cls=Option, metavar=metavar, help=help, **more)


def switch(flag: str, help: str, **more: Any) -> Decorator:
    """An option without a value."""
    return option(flag, None, help, is_flag=True, **more)


def choice(flag: str, names: Sequence[str], help: str, **more: Any) -> Decorator:
    """An option that is one of some names."""
    return option(flag, None, help, type=click.Choice(names), **more)


def path(flag: str, metavar: str, help: str, **more: Any) -> Decorator:
    """An option that is a file or folder."""
    return option(flag, metavar, help, type=click.Path(path_type=Path), **more)


def new_file(flag: str, help: str, **more: Any) -> Decorator:
    """An option that is a file to be written."""
    kind = click.Path(dir_okay=False, path_type=Path)
    return option(flag, "FILE", help, type=kind, **more)


def number(
    flag: str,
    help: str,
    *,
    least: int = 1,
    most: int | None = None,
    metavar: str = "N",
    **more: Any,
) -> Decorator:
    """An option that is a whole number of a range."""
    return option(flag, metavar, help, type=click.IntRange(least, most), **more)


def number_or_text(
    context: click.Context, parameter: click.Parameter, value: Any
) -> float | str | None:
    """Return a number where there is one; anything else stays as it is."""
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return str(value)


def shortlist(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Any:
    """Parse a shortlist."""
    from diffjax.strategies import parse_shortlist

    return None if value is None else parse_shortlist(value)


def strategies(default: str, when: str = "default") -> dict[str, Rows]:
    """List strategies to copy, for the help; ``when`` marks the default."""
    known = {
        STRATEGY: "A class is dropped once it is surely worse, and the race ends when "
        "one is left, or after 250 samples.",
        "staged:to_keep=5,1:n_samples=25,250:order=nested": "All see a few samples; "
        "the best 5 go on to more, the others are pruned.",
        "exhaustive:n_samples=250": "Every class sees 250 samples.",
        "racing, staged, exhaustive": "A name alone takes its defaults: these, but for "
        "staged the paper's stages for about as many classes.",
    }
    kind = default.partition(":")[0]
    return {
        "Strategies": [
            (f"{default}  [{when}]" if text.startswith(f"{kind}:") else text, what)
            for text, what in known.items()
        ]
    }


def together(*options: Decorator) -> Decorator:
    """Make one decorator of several options, in the order of their help."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def section(name: str, *options: Decorator) -> Decorator:
    """Make one decorator of options that are a group of the help."""
    if name not in SECTIONS:
        raise ValueError(f"the help has no group {name!r}")

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        before = len(getattr(command, "__click_params__", ()))
        command = together(*options)(command)
        for each in vars(command)["__click_params__"][before:]:
            each.section = name
        return command

    return decorate


def data_dir_option(what: str) -> Decorator:
    """Make the option ``--data-dir``, with ``what`` for its help."""
    usual = "TFDS_DATA_DIR or ~/tensorflow_datasets"
    return option("--data-dir", "DIR", what, show_default=usual)


def seed_option(what: str) -> Decorator:
    """Make the option ``--seed``, with ``what`` for its help."""
    return number("--seed", what, least=0, most=MAX_SEED, default=0)


merge_option = choice(
    "--merge",
    MERGES,
    "Where a class has several prompts: the best one counts (compete), or the "
    "mean of their text states is taken.",
    default="compete",
)
prompt_options = section(
    "prompts",
    option(
        "--labels",
        "A,B,...",
        "Classes to choose from; a name with a comma goes in double quotes. "
        "Without them a class-conditional model takes all of its own.",
    ),
    option(
        "--template",
        "TEXT",
        "Prompt with a {} for the label; may be given several times.",
        name="templates",
        multiple=True,
        show_default=DEFAULT_TEMPLATE,
    ),
    option(
        "--prompts",
        "FILE.csv",
        "Prompts instead of labels: columns prompt, classname, classidx.",
        name="prompts_file",
    ),
    merge_option,
)
strategy_option, strategies_option = (
    option(
        "--strategy",
        "STRATEGY",
        f"Which classes to evaluate on how many samples; see below.{more}",
        multiple=bool(more),
        shell_complete=completion.strategies,
    )
    for more in ("", AGAIN)
)
loss_option = together(
    choice(
        "--loss",
        LOSSES,
        "Distance between noise and predicted noise; for DiT also the variational "
        "bound.",
        default="l2",
    ),
    choice(
        "--space",
        SPACES,
        "In which l2 and l1 measure: noise, the image's data, or the velocity from one "
        "to the other. It weighs timesteps.",
        default="noise",
    ),
)
noise_source_option = option(
    "--noise",
    "image|shared|FILE",
    "Each image's own noise, one for all, or a file's (npy, npz or safetensors).",
    default="image",
)
noise_option = together(seed_option("Seed of the noise."), noise_source_option)
error_options = section("deciding", loss_option, noise_option)
score_options = section(
    "deciding",
    number("--budget", "Stop a race at N evaluations of an image, less sure by then."),
    option(
        "--shortlist",
        "auto|k=N:...",
        "Of many classes evaluate only the best by an estimate, whose cost does not "
        "depend on their number: N, or as many as its error on the image asks for. "
        "Further settings, with colons: of k, n_samples=16, directions=0; of auto, "
        "risk=0.01, directions=8.",
        callback=shortlist,
    ),
    option(
        "--samples", "FILE", "Samples of `diffjax learn`, with their noise: few-shot."
    ),
    loss_option,
    noise_option,
    option(
        "--temperature",
        "X|RUN",
        "Temperature of the scores, in units of the error, or a calibrated run "
        "that has it. It does not change the order.",
        type=click.UNPROCESSED,
        show_default=f"the model's, else {TEMPERATURE:g}",
        callback=number_or_text,
        shell_complete=completion.runs,
    ),
)
deciding_options = together(section("deciding", strategy_option), score_options)
dtype_option = choice(
    "--dtype",
    DTYPES,
    "Number type of the denoiser; auto is bfloat16 on accelerators, float32 on a CPU.",
    default="auto",
)
shard_weights_option = choice(
    "--shard-weights",
    SHARD_WEIGHTS,
    "Split the denoiser's weights among the devices instead of copying them "
    "to each: always, never, or where copies would take too much memory.",
    default="auto",
)
device_options = section(
    "device",
    dtype_option,
    option(
        "--cells",
        "N",
        "Most evaluations per device call, at least one on each: memory against speed.",
        type=int,
        show_default="what memory holds",
    ),
    shard_weights_option,
)
process_options = section(
    "device",
    number(
        "--process-index",
        "Which of several processes on one run this is, from 0.",
        least=0,
        metavar="K",
        default=0,
    ),
    number(
        "--process-count",
        "How many there are; each does its part of the images.",
        default=1,
    ),
    switch(
        "--distributed",
        "Take both from what launched the processes: Slurm, MPI or a TPU pod.",
    ),
)
max_pixels_option = number(
    "--max-pixels",
    "Refuse images of more pixels; JPEG files of up to four times as many are "
    "read at half their size.",
    show_default="67,108,864, 8192 × 8192",
)
image_options = section(
    "data",
    number("--resolution", "Pixels along an edge.", show_default="the model's"),
    choice(
        "--transform",
        TRANSFORMS,
        "How an image becomes a square.",
        show_default="as the model was trained",
    ),
    choice(
        "--interpolation", INTERPOLATIONS, "Filter of the resize.", default="bicubic"
    ),
    option(
        "--sizes",
        "image|H,W,TOP,LEFT,H,W",
        "What SDXL is told of sizes, in pixels: the original's, the crop's place, and "
        "what was aimed at. image: each image's own, 0,0 and the resolution twice.",
        show_default="image, where a model is told sizes",
    ),
    max_pixels_option,
)
model_option, models_option = (
    option(
        "--model",
        "NAME",
        "A folder in the diffusers layout, a file of a whole Stable Diffusion 1, 2 or "
        "XL, a name of `diffjax models`, or a Hugging Face id: the first that there "
        f"is.{more}",
        multiple=bool(more),
        default=("tiny",) if more else "tiny",
        shell_complete=completion.models,
    )
    for more in ("", AGAIN)
)
revision_option = option("--revision", "REV", "Branch, tag or commit on Hugging Face.")
cache_option = option("--cache-dir", "DIR", "Where downloads are kept.")
offline_option = switch(
    "--offline", "Take downloads from the cache; no network.", name="local_files_only"
)
hub_options = together(revision_option, cache_option, offline_option)
part_options = section(
    "model",
    option("--unet", "PATH", f"U-Net {ELSEWHERE}"),
    option("--transformer", "PATH", f"Transformer {ELSEWHERE}"),
    option("--vae", "PATH", f"Autoencoder {ELSEWHERE}"),
    option("--text-encoder", "PATH", f"Text encoder {ELSEWHERE}"),
    option("--text-encoder-2", "PATH", f"Second text encoder {ELSEWHERE}"),
    option(
        "--text-encoder-3",
        "PATH|none",
        f"Third text encoder, of Stable Diffusion 3, {ELSEWHERE} none leaves it out.",
    ),
    option("--tokenizer", "PATH", "Tokenizer of a text encoder that has its own."),
    option("--tokenizer-2", "PATH", "The same for the second text encoder."),
    option("--tokenizer-3", "PATH", "The same for the third."),
    option("--lora", "FILE[:X]", f"LoRA to merge, at scale X.{AGAIN}", multiple=True),
    option(
        "--textual-inversion", "FILE[:WORD]", f"Learned word.{AGAIN}", multiple=True
    ),
    option(
        "--shift",
        "X",
        "Shift of a flow's noise levels, instead of its scheduler's; 1 spreads them "
        "evenly.",
        type=float,
    ),
    option(
        "--guidance",
        "X",
        "Guidance that FLUX.1 dev is told.",
        type=float,
        show_default="3.5",
    ),
    option(
        "--variant",
        "NAME",
        "Variant of the weights, such as fp16, bf16 or non_ema; parts without it "
        "have their plain ones taken.",
    ),
    revision_option,
    cache_option,
    option(
        "--prompt-cache",
        "DIR",
        "Folder that keeps what text encoders say of prompts for other runs.",
    ),
    offline_option,
)
checkpoint_options = together(section("model", model_option), part_options)
json_option = switch("--json", "JSON on standard output.", name="as_json")
quiet_option = switch("--quiet", "No progress on standard error.", short="-q")
output_options = section(
    "output",
    switch("--json", "JSON on standard output, a line an image.", name="as_json"),
    quiet_option,
)
