"""The picture of docs/how-it-works.md: one image, its samples, and the race's grid.

python scripts/make_picture.py --out docs/how-it-works.png     # `tiny`, seed 0
"""

import argparse
from importlib.resources import files
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from diffjax import DiffusionClassifier
from diffjax.report.plots import OTHERS, RIVALS, WINNER

IMAGE = "0202_ship.png"
LABELS = ["airplane", "automobile", "bird", "cat", "deer"]
LABELS += ["dog", "frog", "horse", "ship", "truck"]
TEMPLATE = "a blurry photo of a {}."
SHOWN = 7  # noised latents
UNIT = 1e-3


def picture() -> Figure:
    """Draw one classification as it went."""
    clf = DiffusionClassifier.from_pretrained("tiny")
    path = files("diffjax") / "assets" / "images" / IMAGE
    record = clf.classify(str(path), LABELS, TEMPLATE)
    used = int((~np.isnan(record.errors)).any(axis=0).sum())  # in the order of use
    timesteps = np.asarray(record.samples.timesteps[:used])
    order = record.decision.ranking
    errors = record.errors[order, :used]
    paired = (errors - errors[0]) / UNIT
    means, spread = (values[order] / UNIT for values in record.differences())

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1.1, 4, 2), height_ratios=(1, 2.6))

    axes = figure.add_subplot(grid[0, 0])
    axes.imshow((record.pixels + 1) / 2)
    axes.set_title("image", fontsize=10)
    axes.axis("off")

    z0 = np.asarray(clf.encode(str(path)).z0)[..., :3]
    low, high = z0.min(), z0.max()
    draw = np.random.default_rng(0)
    strip = grid[0, 1:].subgridspec(1, SHOWN)
    schedule = clf.model.schedule
    for place in range(SHOWN):
        t = timesteps[place]
        noise = draw.standard_normal(z0.shape)
        z = schedule.signal[t] * z0 + schedule.sigma[t] * noise
        axes = figure.add_subplot(strip[0, place])
        axes.imshow(np.clip((np.asarray(z) - low) / (high - low), 0, 1))
        axes.set_title(f"t = {t}", fontsize=9)
        axes.axis("off")

    axes = figure.add_subplot(grid[1, :2])
    edge = np.nanquantile(np.abs(paired), 0.95)
    axes.set_facecolor("#CFCFCF")
    mesh = axes.pcolormesh(
        paired, cmap="PuOr_r", vmin=-edge, vmax=edge, edgecolors="white", linewidth=0.5
    )
    names = [record.labels[c] for c in order]
    axes.set_yticks(np.arange(len(names)) + 0.5, names)
    axes.get_yticklabels()[0].set_color(WINNER)
    axes.invert_yaxis()
    axes.set_xlabel("samples (t, ε), in the order of the race; grey: not evaluated")
    axes.set_title("error less the winner's, on the same sample", fontsize=10)
    figure.colorbar(mesh, ax=axes, location="left", pad=0.02, label=f"d, in {UNIT:g}")

    axes = figure.add_subplot(grid[1, 2])
    colours = [WINNER, *[RIVALS[0]] * (len(names) - 1)]
    places = np.arange(len(names)) + 0.5
    axes.barh(places, means, xerr=spread, color=colours, ecolor=OTHERS, height=0.7)
    axes.set_ylim(len(names), 0)
    axes.set_yticks([])
    axes.axvline(0, color=WINNER, linewidth=1)
    axes.set_xlabel(f"mean ± standard error, in {UNIT:g}")
    axes.set_title(f"{record.evaluations} evaluations: {record.label}", fontsize=10)
    return figure


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/how-it-works.png"))
    picture().savefig(parser.parse_args().out, dpi=120)


if __name__ == "__main__":
    main()
