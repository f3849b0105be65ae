"""``diffjax calibrate``."""

from pathlib import Path
from typing import Any

import click

from diffjax.cli import completion
from diffjax.cli.group import (
    Failure,
    fail_if_partial,
    group,
    partial_option,
    print_json,
)
from diffjax.cli.options import path, switch

EPILOG = """\b
Example:
  diffjax calibrate runs/pets
  diffjax classify cat.jpg --labels cat,dog --temperature runs/pets
  diffjax calibrate runs/pets --save ./my-model"""

WHEN = ("before", "after")


@group.command(epilog=EPILOG)
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@path(
    "--save",
    "FOLDER",
    "Folder of a model that the temperature is to come with: whoever loads it has it "
    "by default, for the loss of the run.",
    name="model",
)
@switch("--json", "JSON on standard output.", name="as_json")
@partial_option
def calibrate(run: str, model: Path | None, as_json: bool, allow_partial: bool) -> None:
    """Fit the temperature of the scores to a run's labels.

    Writes RUN/calibration.json, with the negative log-likelihood (NLL) and the expected
    calibration error (ECE) before and after: each fifth of the images is measured with
    the temperature of the others. If NLL or ECE rises there, calibration has made
    things worse; then nothing is written, and the command ends with exit code 2.
    """
    from diffjax.classify.temperature import CALIBRATION
    from diffjax.runs.calibration import calibrate as fit
    from diffjax.runs.calibration import save_calibration, write_calibration
    from diffjax.runs.folder import read_run

    found = read_run(run, errors=False)
    result = fit(found)
    written = None if result["worse"] else write_calibration(found, result)
    print_json(result) if as_json else _show(result, written)
    if written is None:
        told = [_why(result, found.path / CALIBRATION), found.shortfall]
        raise Failure("\n".join(filter(None, told)))
    if model is not None:
        file = save_calibration(model, result)
        click.echo(f"{model.name} comes with it now: {file}", err=True)
    fail_if_partial([found.shortfall], allow_partial)


def _why(result: dict[str, Any], path: Path) -> str:
    """Why nothing is written, and what to do."""
    told = []
    for name in result["worse"]:
        before, after = (result[f"{name.lower()}_{when}"] for when in WHEN)
        told.append(f"the {name} rises by {after - before:.2g} to {after:.4f}")
    worse = " and ".join(told)
    earlier = " The one that is there, of an earlier time, stays." * path.exists()
    return (
        f"{path} is not written: on images that a temperature was not fitted to, "
        f"{worse}.{earlier} More images would tell more surely; --temperature "
        f"{result['temperature']:.3g} takes the fitted one all the same."
    )


def _show(result: dict[str, Any], path: Path | None) -> None:
    from rich.text import Text

    from diffjax.cli.columns import Column, FittingTable
    from diffjax.cli.terminal import Output

    titles = ("", "temperature", "NLL", "ECE %")
    table = FittingTable(columns=[Column(title=title) for title in titles])
    temperatures = (result["temperature_before"], result["temperature"])
    for name, temperature in zip(WHEN, temperatures, strict=True):
        nll, ece = result[f"nll_{name}"], result[f"ece_{name}"]
        table.add_row(
            name,
            f"{temperature:.3g}",
            "too few images" if nll is None else f"{nll:.4f}",
            "" if ece is None else f"{100 * ece:.2f}",
        )
    console = Output()
    console.print(table)
    left_out = f", {result['left_out']:,} left out" if result["left_out"] else ""
    checked = (
        "too few to see what it does on images that it was not fitted to"
        if result["nll_after"] is None
        else f"after: each of {result['folds']} folds by the temperature of the others"
    )
    console.print(
        Text(
            f"{result['images']:,} images{left_out}; {checked}. "
            f"ECE: {result['ece_kind']}.",
            style="dim",
        )
    )
    if path is not None:
        console.print(f"written to {path}", highlight=False, soft_wrap=True)
