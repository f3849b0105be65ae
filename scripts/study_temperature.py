"""How a fitted temperature depends on loss, strategy and number of samples.

    diffjax evaluate fashion_mnist --model tiny-dit --data-dir data --also l1 \\
        --limit 1000 --strategy exhaustive:n_samples=100 --save-errors --out RUN
    python scripts/study_temperature.py RUN

Every strategy decides again from the run's saved errors. A temperature τ is fitted on
half of the images, and the ECE, in points, is that of the other half: at 0.001, at the
strategy's own τ, and at one for all strategies. That one is fitted to the decisions of
all samples and to those of a race, together; `--save MODEL` writes it, of all images,
into a model's folder. Both halves are measured in turn, and the mean is told.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.checkpoints.temperatures import save_temperature
from diffjax.choices import TEMPERATURE
from diffjax.classify.record import log_scores, settled_differences
from diffjax.runs.calibration import fit_temperature
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import reliability
from diffjax.runs.outcomes import outcomes
from diffjax.runs.rescoring import rescore, write_rescored
from diffjax.runs.run import Run
from diffjax.strategies import parse_strategy

STRATEGIES = (
    "exhaustive:n_samples={n}",
    "exhaustive:n_samples={quarter}",
    "staged:to_keep=5,1:n_samples={quarter},{n}:order=nested",
    "racing:n_samples={n}:confidence=0.99",
    "racing:n_samples={n}",
    "racing:n_samples={n}:confidence=0.6",
    "racing:n_samples={quarter}",
)
BOTH = (0, 4)  # of these: to which one temperature for all is fitted


class Decided(NamedTuple):
    """What a strategy makes of n images.

    settled: [n, C], as scores are made of; labels [n]; correct [n]; evaluations, mean.
    """

    settled: np.ndarray
    labels: np.ndarray
    correct: np.ndarray
    evaluations: float

    def excess(self, half: np.ndarray) -> np.ndarray:
        """Of some of the images, what temperatures are fitted to."""
        settled, labels = self.settled[half], self.labels[half][:, None]
        excess: np.ndarray = settled - np.take_along_axis(settled, labels, axis=1)
        np.put_along_axis(excess, labels, np.inf, axis=1)
        return excess

    def ece(self, half: np.ndarray, temperature: float) -> float:
        """Of some of the images, in points."""
        logs = log_scores(self.settled[half], temperature)
        return 100 * reliability(np.exp(logs.max(axis=1)), self.correct[half]).ece


def decide(run: Run, loss: str, strategy: str) -> Decided:
    """A run's images, decided again."""
    rescored = rescore(run, loss=loss, strategy=parse_strategy(strategy))
    with tempfile.TemporaryDirectory() as folder:
        found = outcomes(write_rescored(rescored, Path(folder, "run")))
    return Decided(
        settled_differences(found.differences, found.rankings).astype(np.float64),
        found.local_labels,
        found.correct,
        float(np.mean([row["evaluations"] for row in rescored.good])),
    )


def study(run: Run, loss: str) -> dict[str, Any]:
    """Print the table of a loss; return what a model's folder tells of its τ."""
    n = len(run.good["timesteps"][0])
    names = [template.format(n=n, quarter=n // 4) for template in STRATEGIES]
    both = [names[k] for k in BOTH]
    decided = {name: decide(run, loss, name) for name in names}
    half = np.arange(len(decided[names[0]].labels)) % 2 == 0
    turns = ((half, ~half), (~half, half))

    def fit(chosen: list[str], images: np.ndarray) -> float:
        excess = [decided[name].excess(images) for name in chosen]
        return fit_temperature(np.concatenate(excess))

    def ece(name: str, taus: list[float]) -> str:
        pairs = zip(turns, taus, strict=True)
        each = [decided[name].ece(other, tau) for (_, other), tau in pairs]
        return f"{np.mean(each):.1f}"

    shared = [fit(both, images) for images, _ in turns]
    tau = fit(both, half | ~half)
    print(f"\n{loss}, {len(half):,} images; τ = {tau:.5f} for all strategies")
    print("| strategy | evaluations | its τ | ECE at 0.001 | at its τ | at one |")
    print("|---|---|---|---|---|---|")
    for name in names:
        own = [fit([name], images) for images, _ in turns]
        eces = [ece(name, each) for each in ([TEMPERATURE] * 2, own, shared)]
        told = (f"`{name}`", f"{decided[name].evaluations:,.0f}", f"{np.mean(own):.5f}")
        print(f"| {' | '.join((*told, *eces))} |")
    return {
        "temperature": float(f"{tau:.3g}"),
        "dataset": run.header["data"]["name"],
        "images": len(half),
        "strategies": both,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--save", type=Path, metavar="MODEL", help="folder of the model"
    )
    args = parser.parse_args()
    run = read_run(args.run, errors=True)
    experiment = run.header["experiment"]
    for loss in (experiment["loss"], *experiment["also"]):
        told = study(run, loss)
        if args.save is not None:
            save_temperature(args.save, loss, told)


if __name__ == "__main__":
    main()
