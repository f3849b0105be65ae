"""``diffjax models``."""

from dataclasses import asdict

import click

from diffjax.cli.group import group, print_json


@group.command()
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
def models(as_json: bool) -> None:
    """List the models that --model knows by name."""
    from diffjax.checkpoints.catalog import MODELS

    if as_json:
        print_json([asdict(model) for model in MODELS.values()])
        return
    from diffjax.cli.tables import models_table
    from diffjax.cli.terminal import Output

    Output().print(models_table(list(MODELS.values())))
