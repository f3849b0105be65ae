"""Options of the commands."""

from collections.abc import Callable
from typing import Any

import click

from diffjax.choices import (
    DTYPES,
    INTERPOLATIONS,
    LOSSES,
    MAX_SEED,
    MERGES,
    SHARD_WEIGHTS,
    STRATEGY,
    TEMPERATURE,
    TRANSFORMS,
)
from diffjax.data.prompts import DEFAULT_TEMPLATE

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

ELSEWHERE = "from another folder, id or file of weights."


def number_or_text(
    context: click.Context, parameter: click.Parameter, value: Any
) -> float | str:
    """Return a number where there is one; anything else stays as it is."""
    try:
        return float(value)
    except ValueError:
        return str(value)


def shortlist(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Any:
    """Parse a shortlist."""
    if value is None:
        return None
    from diffjax.strategies import parse_shortlist

    return parse_shortlist(value)


def strategy_epilog(default: str, when: str = "default") -> str:
    """List strategies to copy, on unwrapped lines; ``when`` marks the default."""
    known = {
        "racing:": (
            STRATEGY,
            "a class is dropped once it is surely worse, and the race ends when one\n"
            "    is left, or after 250 samples",
        ),
        "staged:": (
            "staged:to_keep=5,1:n_samples=25,250:order=nested",
            "all see a few samples; the best 5 go on to more, the others are pruned",
        ),
        "exhaustive:": ("exhaustive:n_samples=250", "every class sees 250 samples"),
    }
    lines = []
    for kind, (text, what) in known.items():
        if default.startswith(kind):
            text = f"{default}  [{when}]"
        lines.append(f"  {text}\n    {what}")
    return "\n".join(["\b", "Strategies:", *lines])


def together(*options: Decorator) -> Decorator:
    """Make one decorator of several options, in the order of their help."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def seed_option(what: str) -> Decorator:
    """Make the option ``--seed``, with ``what`` for its help."""
    return click.option(
        "--seed",
        type=click.IntRange(0, MAX_SEED),
        metavar="N",
        default=0,
        show_default=True,
        help=what,
    )


merge_option = click.option(
    "--merge",
    type=click.Choice(MERGES),
    default="compete",
    show_default=True,
    help="Where a class has several prompts: the best one counts (compete), or the "
    "mean of their text states is taken.",
)
prompt_options = together(
    click.option(
        "--labels",
        metavar="A,B,...",
        help="Classes to choose from; a name with a comma goes in double quotes. "
        "Without them a class-conditional model takes "
        "all of its own.",
    ),
    click.option(
        "--template",
        "templates",
        multiple=True,
        metavar="TEXT",
        show_default=DEFAULT_TEMPLATE,
        help="Prompt with a {} for the label; may be given several times.",
    ),
    click.option(
        "--prompts",
        "prompts_file",
        metavar="FILE.csv",
        help="Prompts instead of labels: columns prompt, classname, classidx.",
    ),
    merge_option,
)
loss_option = click.option(
    "--loss",
    type=click.Choice(LOSSES),
    default="l2",
    show_default=True,
    help="Distance between noise and predicted noise; for DiT also the variational "
    "bound.",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="auto",
    show_default=True,
    help="Number type of the denoiser; auto is bfloat16 on accelerators, float32 on a "
    "CPU.",
)
scoring_options = together(
    click.option(
        "--strategy",
        metavar="STRATEGY",
        help="Which classes to evaluate on how many samples; see below.",
    ),
    loss_option,
    dtype_option,
    seed_option("Seed of the noise."),
)
cost_options = together(
    click.option(
        "--shortlist",
        metavar="k=N:...",
        callback=shortlist,
        help="Of many classes evaluate only the best N by an estimate, whose cost does "
        "not depend on their number. Further settings: "
        "n_samples=16:base=mean|unconditional|clusters:rounds=1:clusters=8.",
    ),
    click.option(
        "--noise",
        metavar="image|shared|FILE",
        default="image",
        show_default=True,
        help="Each image's own noise, one for all images, or a file's (npy, npz or "
        "safetensors).",
    ),
    click.option(
        "--temperature",
        type=click.UNPROCESSED,  # else click would have it be a number
        metavar="X|RUN",
        default=TEMPERATURE,
        show_default=True,
        callback=number_or_text,
        help="Temperature of the scores, in units of the error, or a calibrated run "
        "that has it. It does not change the order.",
    ),
    click.option(
        "--cells",
        type=int,
        metavar="N",
        show_default="what memory holds",
        help="Most evaluations per device call, at least one on each: memory against "
        "speed.",
    ),
    click.option(
        "--shard-weights",
        type=click.Choice(SHARD_WEIGHTS),
        default="auto",
        show_default=True,
        help="Split the denoiser's weights among the devices instead of copying them "
        "to each: always, never, or where copies would take too much memory.",
    ),
)
image_options = together(
    click.option(
        "--resolution",
        type=click.IntRange(min=1),
        metavar="N",
        show_default="the model's",
        help="Pixels along an edge.",
    ),
    click.option(
        "--transform",
        type=click.Choice(TRANSFORMS),
        show_default="as the model was trained",
        help="How an image becomes a square.",
    ),
    click.option(
        "--interpolation",
        type=click.Choice(INTERPOLATIONS),
        default="bicubic",
        show_default=True,
        help="Filter of the resize.",
    ),
)
max_pixels_option = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    show_default="67,108,864, 8192 × 8192",
    help="Refuse images of more pixels; JPEG files of up to four times as many are "
    "read at half their size.",
)
model_option = click.option(
    "--model",
    metavar="NAME",
    default="tiny",
    show_default=True,
    help="A folder in the diffusers layout, a name of `diffjax models`, or a Hugging "
    "Face id: the first that there is.",
)
checkpoint_options = together(
    model_option,
    click.option("--unet", metavar="PATH", help=f"U-Net {ELSEWHERE}"),
    click.option("--transformer", metavar="PATH", help=f"DiT {ELSEWHERE}"),
    click.option("--vae", metavar="PATH", help=f"Autoencoder {ELSEWHERE}"),
    click.option("--text-encoder", metavar="PATH", help=f"Text encoder {ELSEWHERE}"),
    click.option(
        "--tokenizer",
        metavar="PATH",
        help="Tokenizer from another folder or id; needed where a text encoder has its "
        "own.",
    ),
    click.option(
        "--variant",
        metavar="NAME",
        help="Variant of the weights, such as fp16, bf16 or non_ema; parts without it "
        "have their plain ones taken.",
    ),
    click.option(
        "--revision", metavar="REV", help="Branch, tag or commit on Hugging Face."
    ),
    click.option("--cache-dir", metavar="DIR", help="Where downloads are kept."),
    click.option(
        "--prompt-cache",
        metavar="DIR",
        help="Folder that keeps what text encoders say of prompts for other runs.",
    ),
    click.option(
        "--offline",
        "local_files_only",
        is_flag=True,
        help="Take downloads from the cache; no network.",
    ),
)
output_options = together(
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="JSON on standard output, a line an image.",
    ),
    click.option("--quiet", "-q", is_flag=True, help="No progress on standard error."),
)
