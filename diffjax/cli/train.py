"""``diffjax train``."""

from pathlib import Path

import click

from diffjax.cli import completion
from diffjax.cli.group import group, loading, start
from diffjax.cli.options import data_dir_option, number, option, path, seed_option
from diffjax.errors import DiffjaxError
from diffjax.training.recipes import RECIPES

RECIPE_LINES = "\n".join(f"  {r.name}: {r.summary}" for r in RECIPES.values())


@group.command(epilog=f"\b\nRecipes:\n{RECIPE_LINES}")
@click.argument("recipe", type=click.Choice(list(RECIPES)), metavar="RECIPE")
@data_dir_option("Where prepared data sets are.")
@path(
    "--data",
    "DIR",
    "For a ResNet: a folder with a folder a class, as `diffjax sample` writes it, in "
    "place of the recipe's data set.",
    shell_complete=completion.folders,
)
@number(
    "--resize",
    "Resize the shorter edge of each image of --data to so many pixels, by bicubic "
    "interpolation, and crop the middle.",
    show_default="images of one square size are taken as they are",
)
@option(
    "--out", "RUN", "Folder of the run; a run that is there goes on.", required=True
)
@number(
    "--length",
    "Steps of the run in all, over which the learning rate falls to zero. A "
    "diffusion model's autoencoder is trained before, for at most as many.",
    show_default="the recipe's",
)
@number(
    "--steps", "Stop after so many steps for now; the same command without it goes on."
)
@option(
    "--init",
    "MODEL",
    "Train the weights of this model on, as named for --model, and keep its "
    "autoencoder; otherwise weights begin at random.",
    shell_complete=completion.models,
)
@seed_option("Seed of initial weights, batches and noise.")
def train(
    recipe: str,
    data_dir: str | None,
    data: Path | None,
    resize: int | None,
    out: str,
    length: int | None,
    steps: int | None,
    init: str | None,
    seed: int,
) -> None:
    """Train a small model; the result is the checkpoint RUN/model."""
    console, _ = start()
    with loading(console, quiet=False):
        from diffjax.training.runs import run_training

    if data is not None and data_dir is not None:
        raise DiffjaxError("--data and --data-dir exclude each other.")
    model = run_training(
        recipe,
        data_dir,
        out,
        length=length,
        steps=steps,
        seed=seed,
        init=init,
        data=data,
        resize=resize,
    )
    click.echo(str(model))
