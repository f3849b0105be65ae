"""``diffjax calibrate``."""

from typing import Any

import click

from diffjax.cli import completion
from diffjax.cli.group import fail_if_partial, group, partial_option, print_json
from diffjax.cli.options import switch

EPILOG = """\b
Example:
  diffjax calibrate runs/pets
  diffjax classify cat.jpg --labels cat,dog --temperature runs/pets"""


@group.command(epilog=EPILOG)
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@switch("--json", "JSON on standard output.", name="as_json")
@partial_option
def calibrate(run: str, as_json: bool, allow_partial: bool) -> None:
    """Fit the temperature of the scores to a run's labels.

    Writes RUN/calibration.json, with the negative log-likelihood and the calibration
    error before and after; each half of the images is measured with the temperature
    of the other half.
    """
    from diffjax.runs.calibration import calibrate as fit
    from diffjax.runs.calibration import write_calibration
    from diffjax.runs.folder import read_run

    found = read_run(run, errors=False)
    result = fit(found)
    path = write_calibration(found, result)
    print_json(result) if as_json else _show(result, str(path))
    fail_if_partial([found.shortfall], allow_partial)


def _show(result: dict[str, Any], path: str) -> None:
    from rich.table import Table

    from diffjax.cli.terminal import Output

    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("")
    for column in ("temperature", "NLL", "ECE %"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, temperature in (
        ("before", result["temperature_before"]),
        ("after", result["temperature"]),
    ):
        nll, ece = result[f"nll_{name}"], result[f"ece_{name}"]
        table.add_row(
            name,
            f"{temperature:.3g}",
            "too few images" if nll is None else f"{nll:.4f}",
            "" if ece is None else f"{100 * ece:.2f}",
        )
    console = Output()
    console.print(table)
    left_out = result["left_out"]
    console.print(
        f"{result['images']:,} images"
        + (f", {left_out:,} left out" if left_out else "")
        + f"; written to {path}",
        highlight=False,
        soft_wrap=True,
    )
