"""The README's first picture: four moments of a race.

python scripts/make_race.py --out docs/race.png                # `tiny`, seed 0
"""

import argparse
from importlib.resources import files
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from diffjax import DiffusionClassifier
from diffjax.classify.race import Moment, race
from diffjax.report.plots import OTHERS, RIVALS, WINNER

IMAGE = "0202_ship.png"
LABELS = ["airplane", "automobile", "bird", "cat", "deer"]
LABELS += ["dog", "frog", "horse", "ship", "truck"]
TEMPLATE = "a blurry photo of a {}."
UNIT = 1e-3
SIDES = 2  # standard errors to either side
LEFT = (10, 5, 2, 1)  # classes, in the moments that are shown
MUTED = "#777777"


def shown(moments: list[Moment]) -> list[Moment]:
    """The first look, and the first moments with few enough classes left."""
    known = [each for each in moments if each.record is not None]
    left = [int((~each.record.decision.pruned).sum()) for each in known]
    return [
        known[-1] if n == 1 else known[next(i for i, m in enumerate(left) if m <= n)]
        for n in LEFT
    ]


def picture() -> Figure:
    """Race ten classes on one image, and draw four moments beside it."""
    clf = DiffusionClassifier.from_pretrained("tiny")
    path = files("diffjax") / "assets" / "images" / IMAGE
    moments: list[Moment] = []
    record = race(clf, str(path), clf.candidates(LABELS, TEMPLATE), moments.append)
    order = record.decision.ranking
    rows = np.arange(len(order))

    figure = Figure(figsize=(10, 3.3), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(LEFT), width_ratios=[1.1, 1, 1, 1, 1])
    first.imshow((record.pixels + 1) / 2)
    first.set_title("the image", fontsize=10)
    first.axis("off")
    edge = 1.3 * np.nanmax(record.differences()[0]) / UNIT
    for axes, moment in zip(others, shown(moments), strict=True):
        now = moment.record
        assert now is not None
        means, errors = (values[order] / UNIT for values in now.differences())
        pruned, leader = now.decision.pruned[order], order == now.decision.winner
        colours = np.where(pruned, OTHERS, RIVALS[0])
        axes.barh(rows, means, color=colours, height=0.62, alpha=0.6)
        for row in rows[~leader]:
            ink = MUTED if pruned[row] else "black"
            reach = SIDES * errors[row]
            ends = means[row] - reach, means[row] + reach
            axes.plot(ends, [row, row], color=ink, linewidth=1.4)
        axes.plot([0], rows[leader], "o", color=WINNER, markersize=8)
        axes.axvline(0, color=WINNER, linewidth=1)
        left = int((~pruned).sum())
        what = f"{left} of {len(order)} left" if left > 1 else f"“{now.label}” wins"
        axes.set_title(f"{what}\n{now.evaluations} evaluations", fontsize=10)
        axes.set(xlim=(-0.25 * edge, edge), ylim=(len(order) - 0.4, -0.6))
        names = (
            [now.labels[c] for c in order] if axes is others[0] else [""] * len(rows)
        )
        axes.set_yticks(rows, names)
        axes.set_xticks(np.arange(0, edge, 2))
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        if axes is not others[0]:
            continue
        for label, gone in zip(axes.get_yticklabels(), pruned, strict=True):
            label.set_color(MUTED if gone else "black")
    figure.supxlabel(
        "error above the leader’s, ×10⁻³, ± two standard errors; "
        "grey: dropped, since surely worse",
        fontsize=9,
        color="#555555",
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/race.png"))
    args = parser.parse_args()
    picture().savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
