"""``diffjax models``."""

from dataclasses import asdict

from diffjax.cli.group import group, print_json
from diffjax.cli.options import switch


@group.command()
@switch("--json", "JSON on standard output.", name="as_json")
def models(as_json: bool) -> None:
    """List the models that --model knows by name."""
    from diffjax.checkpoints.catalog import MODELS

    if as_json:
        print_json([asdict(model) for model in MODELS.values()])
        return
    from diffjax.cli.tables import models_table
    from diffjax.cli.terminal import Output

    Output().print(models_table(list(MODELS.values())))
