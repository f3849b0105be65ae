"""``diffjax rescore``."""

from typing import TYPE_CHECKING, Any

import click

from diffjax.choices import SPACES
from diffjax.cli import completion
from diffjax.cli.group import fail_if_partial, group, partial_option, print_json
from diffjax.cli.options import choice, number, option, switch

if TYPE_CHECKING:
    from diffjax.cli.columns import FittingTable
    from diffjax.runs.rescoring import Rescored

EPILOG = """\b
Examples:
  diffjax rescore runs/pets --weights exp
  diffjax rescore runs/pets --strategy exhaustive:n_samples=50
  diffjax rescore runs/pets --loss l1 --out runs/pets-l1"""


@group.command(epilog=EPILOG)
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@option("--loss", "LOSS", "One that was saved.", show_default="the run's")
@choice(
    "--space",
    SPACES,
    "In which l2 and l1 measure; as evaluating in it.",
    show_default="the run's",
)
@choice(
    "--weights",
    ["uniform", "exp", "inverse-sd", "learned"],
    "Over timesteps: exp(−7 t/T), one over the errors' standard deviation, or "
    "learned from the labels by cross-validation.",
    show_default="the run's: uniform, or those of its learned samples",
)
@option(
    "--strategy",
    "STRATEGY",
    "Simulated on the saved errors, which stand for its timesteps.",
    show_default="all that was saved",
    shell_complete=completion.strategies,
)
@number(
    "--folds",
    "Parts of the images for learned weights.",
    least=2,
    name="n_folds",
    default=5,
)
@number("--bins", "Bins of timesteps for learned weights.", name="n_bins", default=10)
@option("--out", "NEWRUN", "Write the decisions as a run.")
@switch("--json", "JSON on standard output.", name="as_json")
@partial_option
def rescore(
    run: str,
    loss: str | None,
    space: str | None,
    weights: str | None,
    strategy: str | None,
    n_folds: int,
    n_bins: int,
    out: str | None,
    as_json: bool,
    allow_partial: bool,
) -> None:
    """Decide a run again from its saved errors, without a model.

    RUN is a folder that `diffjax evaluate --save-errors` or `diffjax import` wrote.
    """
    from pathlib import Path

    from diffjax.runs.folder import read_run
    from diffjax.runs.outcomes import left_out
    from diffjax.runs.rescoring import rescore as decide_again
    from diffjax.runs.rescoring import write_rescored
    from diffjax.strategies import parse_strategy

    found = read_run(run)
    rescored = decide_again(
        found,
        loss=loss,
        space=space,
        weights=weights,
        strategy=None if strategy is None else parse_strategy(strategy),
        n_folds=n_folds,
        n_bins=n_bins,
    )
    if out is not None:
        write_rescored(rescored, Path(out))
    result = _comparison(rescored)
    print_json(result) if as_json else _show(rescored, result)
    if failed := left_out(found):
        click.echo(f"note: {failed}", err=True)
    fail_if_partial([found.shortfall], allow_partial)


def _show(rescored: "Rescored", result: dict[str, Any]) -> None:
    from diffjax.cli.terminal import Output

    console = Output()
    console.print(_table(result))
    if result["agreement"] is not None:
        console.print(
            f"{100 * result['agreement']:.1f} % of the predictions are the same"
        )
    if rescored.settings["weights"] == "learned":
        console.print(_weights_table(rescored, result["learned_weights"]))


def _comparison(rescored: "Rescored") -> dict[str, Any]:
    """Before and after, as --json prints it; None where there are no images."""
    from diffjax.runs.outcomes import failures
    from diffjax.runs.rescoring import agreement, changes

    before, after = changes(rescored)
    result: dict[str, Any] = {
        "settings": rescored.settings,
        "status": rescored.run.status,
        "images_selected": rescored.run.header["data"]["n"],
        "failed_images": len(failures(rescored.run)),
        "before": before,
        "after": after,
        "agreement": agreement(rescored),
    }
    if rescored.settings["weights"] == "learned":
        # the first timestep of each bin, over the folds
        bins = rescored.settings["bins"]
        weights = rescored.weights.by_timestep
        T = weights.shape[1]
        by_bin = weights[:, [-(-b * T // bins) for b in range(bins)]].mean(axis=0)
        result["learned_weights"] = (by_bin / by_bin.mean()).tolist()
    return result


def _table(result: dict[str, Any]) -> "FittingTable":
    from diffjax.cli.columns import Column, FittingTable

    titles = {"": 0, "accuracy %": 0, "95 % interval": 1, "evaluations": 2, "images": 3}
    table = FittingTable(
        columns=[Column(title=title, goes=goes) for title, goes in titles.items()]
    )
    partial = result["status"] != "complete"
    rest = f" of {result['images_selected']:,}" if partial else ""
    for name in ("before", "after"):
        entry = result[name]
        if entry["acc1"] is None:
            table.add_row(name, "–", "–", "–", "0")
            continue
        low, high = entry["interval"]
        table.add_row(
            name,
            f"{100 * entry['acc1']:.1f}",
            f"{100 * low:.1f}–{100 * high:.1f}",
            f"{entry['evaluations_per_image']:,.0f}",
            f"{entry['images']:,}{rest}",
        )
    return table


def _weights_table(rescored: "Rescored", weights: list[float]) -> "FittingTable":
    from diffjax.cli.columns import Column, FittingTable

    table = FittingTable(columns=[Column(title="timesteps"), Column(title="weight")])
    T = rescored.weights.by_timestep.shape[1]
    edges = [-(-b * T // len(weights)) for b in range(len(weights) + 1)]
    for b, weight in enumerate(weights):
        table.add_row(f"{edges[b]}–{edges[b + 1] - 1}", f"{weight:.2f}")
    return table
