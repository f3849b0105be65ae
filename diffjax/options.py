"""Options that commands share.

Choices repeat tables of modules that are slow to import; a test compares them.
"""

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order of their help."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


scoring_options = together(
    click.option(
        "--strategy",
        metavar="TEXT",
        help="Which classes to evaluate how often: exhaustive:n_samples=100, or "
        "staged:to_keep=5,1:n_samples=25,250:order=nested, which prunes.",
    ),
    click.option(
        "--loss",
        type=click.Choice(["l2", "l1", "huber"]),
        default="l2",
        show_default=True,
        help="Between the noise and the predicted noise.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        default="float32",
        show_default=True,
        help="Of the denoiser.",
    ),
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Of the noise."
    ),
)
model_option = click.option(
    "--model",
    default="tiny",
    show_default=True,
    metavar="NAME",
    help="A name of `diffjax models`, a folder in the diffusers layout, or a Hugging "
    "Face id.",
)
checkpoint_options = together(
    model_option,
    click.option("--unet", metavar="PATH", help="Folder or id of another U-Net."),
    click.option("--transformer", metavar="PATH", help="Likewise a DiT's transformer."),
    click.option("--vae", metavar="PATH", help="Likewise the autoencoder."),
    click.option("--text-encoder", metavar="PATH", help="Likewise the text encoder."),
    click.option(
        "--tokenizer",
        metavar="PATH",
        help="Likewise the tokenizer; needed where a text encoder has its own.",
    ),
    click.option("--revision", help="Branch, tag or commit on the Hub."),
    click.option("--cache-dir", metavar="DIR", help="Where downloads are kept."),
    click.option("--token", help="Hugging Face access token."),
    click.option(
        "--offline",
        "local_files_only",
        is_flag=True,
        help="Take downloads from the cache; no network.",
    ),
)
image_options = together(
    click.option("--resolution", type=int, help="Pixels along an edge.  [the model's]"),
    click.option(
        "--transform",
        type=click.Choice(["resize_crop", "adm"]),
        help="From image to square.  [as the model was trained]",
    ),
    click.option(
        "--interpolation",
        type=click.Choice(
            ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
        ),
        default="bicubic",
        show_default=True,
        help="Of the resize.",
    ),
)
output_options = together(
    click.option("--json", "as_json", is_flag=True, help="JSON on standard output."),
    click.option("--quiet", "-q", is_flag=True, help="No progress on standard error."),
)
