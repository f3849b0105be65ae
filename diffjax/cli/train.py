"""``diffjax train``."""

import click

from diffjax.cli import completion
from diffjax.cli.group import group, loading, start
from diffjax.cli.options import data_dir_option, number, option, seed_option
from diffjax.training.recipes import RECIPES

RECIPE_LINES = "\n".join(f"  {r.name}: {r.summary}" for r in RECIPES.values())


@group.command(epilog=f"\b\nRecipes:\n{RECIPE_LINES}")
@click.argument("recipe", type=click.Choice(list(RECIPES)), metavar="RECIPE")
@data_dir_option("Where prepared data sets are.")
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

    model = run_training(
        recipe, data_dir, out, length=length, steps=steps, seed=seed, init=init
    )
    click.echo(str(model))
