"""Evaluations against agreement and accuracy, for all strategies, on saved errors.

    diffjax evaluate --preset cifar10 --strategy exhaustive:n_samples=250 \\
        --save-errors --out runs/full
    python scripts/study_strategies.py runs/full --out docs/study

Each strategy is simulated on the errors of each RUN, whose samples stand for its
timesteps; no model is needed. Agreement is with what all samples decide. OUT gets
strategies.md (tables), strategies.csv and strategies.png. Intervals are Wilson's, 95 %.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich.progress import track

from diffjax.errors import DiffjaxError
from diffjax.evaluation.charts import BLUE, COLOURS, GRID, MARKERS, MUTED
from diffjax.evaluation.metrics import wilson
from diffjax.evaluation.rescoring import rescore
from diffjax.evaluation.results import Run, read_run
from diffjax.files import atomic, write_text
from diffjax.strategies import strategy_to_text
from diffjax.strategies.base import Strategy
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing
from diffjax.strategies.staged import Staged

CONFIDENCES = (0.5, 0.8, 0.9, 0.95, 0.99)
MANY = 100  # classes, from which on the authors prune in four stages


def strategies(n_classes: int, N: int) -> Iterator[tuple[str, Strategy]]:
    """What is compared on N samples: the family's name, and the strategy.

    The stages are in the authors' proportions: 50 500 for CIFAR-10, 20 50 100 500 for
    Food-101.
    """
    yield "exhaustive", Exhaustive(n_samples=N)
    for part in (2, 5, 10):
        if N >= part:
            yield "exhaustive, fewer samples", Exhaustive(n_samples=N // part)
    keep, parts = ((5, 1), (10, 1))
    if n_classes >= MANY:
        keep, parts = (20, 10, 5, 1), (25, 10, 5, 1)
    stages = tuple(N // part for part in parts)
    if 0 < stages[0] and len(set(stages)) == len(stages):
        for order in ("official", "nested"):
            yield (
                f"staged, {order}",
                Staged(to_keep=keep, n_samples=stages, order=order),
            )
    for confidence in CONFIDENCES:
        yield "racing", Racing(n_samples=N, confidence=confidence)


@dataclass(frozen=True, kw_only=True)
class Result:
    """A strategy on a run.

    Attributes:
        run: name of its folder.
        family: of strategies, for the plot.
        strategy: as text.
        images: that did not fail.
        evaluations: an image, on average.
        most: the evaluations that 95 % of the images need no more than.
        agree: images decided as by all samples.
        right: images decided as labelled.
        sure: mean of what the strategy says of its confidence, if anything.
    """

    run: str
    family: str
    strategy: str
    images: int
    evaluations: float
    most: float
    agree: int
    right: int
    sure: float | None


def study(run: Run, loss: str | None) -> list[Result]:
    """All strategies on one run.

    Raises:
        DiffjaxError: if it has no saved errors, or not all of them.
    """
    if not run.has_errors:
        raise DiffjaxError(
            f"{run.path} has no saved errors. Evaluate with --save-errors."
        )
    lengths = {len(each) for each in run.rows["timesteps"].to_pylist() if each}
    if len(lengths) != 1:
        raise DiffjaxError(
            f"{run.path}: {'no image was' if not lengths else 'not all images were'} "
            "evaluated on the same number of samples."
        )
    todo = list(strategies(len(run.classes), lengths.pop()))
    truth: list[int] = []
    results = []
    for family, strategy in track(todo, description=str(run.path)):
        rows = rescore(run, loss=loss, strategy=strategy).good
        found = [row["prediction"] for row in rows]
        truth = truth or found  # the first is the exhaustive strategy
        evaluations = [row["evaluations"] for row in rows]
        said = [row["confidence"] for row in rows]
        results.append(
            Result(
                run=run.path.name,
                family=family,
                strategy=strategy_to_text(strategy),
                images=len(rows),
                evaluations=float(np.mean(evaluations)),
                most=float(np.quantile(evaluations, 0.95)),
                agree=sum(a == b for a, b in zip(found, truth, strict=True)),
                right=sum(row["prediction"] == row["label"] for row in rows),
                sure=None if None in said else float(np.mean(said)),
            )
        )
    return results


def markdown(results: Sequence[Result]) -> str:
    """A table a run."""
    lines = []
    for name in dict.fromkeys(result.run for result in results):
        own = [result for result in results if result.run == name]
        full = own[0].evaluations
        lines += [
            f"## {name}",
            "",
            f"{own[0].images} images.",
            "",
            "| strategy | evaluations an image | 95 % need at most | of exhaustive "
            "| agrees with exhaustive | accuracy | says it is sure |",
            "|---|---|---|---|---|---|---|",
        ]
        for r in own:
            sure = "" if r.sure is None else f"{100 * r.sure:.1f} %"
            lines.append(
                f"| `{r.strategy}` | {r.evaluations:,.0f} | {r.most:,.0f} "
                f"| 1/{full / r.evaluations:.1f} | {_rate(r.agree, r.images)} "
                f"| {_rate(r.right, r.images)} | {sure} |"
            )
        lines.append("")
    return "\n".join(lines)


def plot(results: Sequence[Result]) -> Figure:
    """Agreement and accuracy against evaluations; a row a run."""
    names = list(dict.fromkeys(result.run for result in results))
    figure = Figure(figsize=(10, 0.6 + 3.4 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 2, squeeze=False)
    for row, name in zip(panels, names, strict=True):
        own = [result for result in results if result.run == name]
        families = list(dict.fromkeys(r.family for r in own))
        for axes, what in zip(row, ("agree", "right"), strict=True):
            for number, family in enumerate(families):
                mine = [r for r in own if r.family == family]
                p = np.array([getattr(r, what) / r.images for r in mine])
                ends = np.array([wilson(getattr(r, what), r.images) for r in mine])
                axes.errorbar(
                    [r.evaluations for r in mine],
                    100 * p,
                    100 * np.abs(ends.T - p),
                    marker=MARKERS[number % len(MARKERS)],
                    color=(*COLOURS, MUTED)[number % (len(COLOURS) + 1)],
                    linewidth=1,
                    elinewidth=0.8,
                    capsize=2,
                    label=family,
                )
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.xaxis.set_minor_formatter("")
            axes.set_xlabel("evaluations an image")
            axes.grid(color=GRID, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("agrees with exhaustive, %")
        row[0].axhline(99, color=BLUE, linewidth=0.8, linestyle=":")
        row[1].set_ylabel("accuracy, %")
        row[0].set_title(f"{name}: {own[0].images} images", loc="left", fontsize=10)
    panels[0, 0].legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def write(results: Sequence[Result], out: Path) -> None:
    """strategies.md, strategies.csv and strategies.png."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "strategies.md", markdown(results))
    with (
        atomic(out / "strategies.csv") as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(vars(results[0])))
        writer.writeheader()
        writer.writerows(vars(result) for result in results)
    with atomic(out / "strategies.png") as partial:
        plot(results).savefig(partial, dpi=120, format="png")


def _rate(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{100 * k / n:.1f} % ({100 * low:.1f} … {100 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--loss", help="one that was saved; the run's own by default")
    args = parser.parse_args()
    try:
        results = [r for run in args.runs for r in study(read_run(run), args.loss)]
        write(results, args.out)
    except DiffjaxError as error:
        sys.exit(f"error: {error}")
    print(markdown(results))


if __name__ == "__main__":
    main()
