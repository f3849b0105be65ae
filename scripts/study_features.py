"""What heads on features of the embedded models are worth, by layer and timestep.

    python scripts/study_features.py --data-dir data
    python scripts/study_features.py --list        # the commands, without running them

Linear heads on three layers and three timesteps of `tiny` (CIFAR-10) and of `tiny-dit`
(Fashion-MNIST), the ResNet head at the timestep of the paper, beside the models' own
runs as classifiers in notebooks/saved, on the same test images. Draws
docs/features.png and prints the table of docs/evaluation.md. Features stay in
runs/features; what is there is not computed again.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SAVED = Path("notebooks") / "saved"
KEPT = Path("runs") / "features"
TIMES = "10,100,300"
# by data set: model, layers, layers of the ResNet head, the model's run as it is
STUDIES = {
    "cifar10": (
        "tiny",
        ("mid_block", "up_blocks.0", "up_blocks.1"),
        ("mid_block",),
        SAVED / "tiny-cifar10",
    ),
    "fashion_mnist": (
        "tiny-dit",
        ("transformer_blocks.1", "transformer_blocks.2", "transformer_blocks.3"),
        ("transformer_blocks.1",),
        SAVED / "dit-fashion",
    ),
}


def commands(args: argparse.Namespace, data: str) -> list[list[str]]:
    """Arguments of `diffjax`: linear heads on all, then the ResNet's."""
    model, layers, few, run = STUDIES[data]
    images = ["--train-limit", str(args.train), "--limit", str(args.test)]
    shared = ["features", data, "--model", model, "--data-dir", str(args.data_dir)]
    shared += [*images, "--zero-shot", str(run), "--out", str(KEPT / data)]
    return [
        [*shared, "--heads", "linear", *cells(layers, TIMES)],
        [*shared, "--heads", "resnet", *cells(few, "100")],
    ]


def cells(layers: Sequence[str], times: str) -> list[str]:
    """Options for layers and timesteps."""
    return ["--layers", ",".join(layers), "--timesteps", times]


def percent(row: Mapping[str, Any]) -> str:
    """An accuracy with its interval."""
    low, high = (100 * end for end in row["interval"])
    return f"{100 * row['accuracy']:.1f} ({low:.1f} to {high:.1f})"


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row a model, layer and head, a column a timestep."""
    times = TIMES.split(",")
    columns = ["model", "layer", "head", *(f"t = {t}" for t in times)]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for each in found:
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for row in each["rows"]:
            cell = cells.setdefault((row["layer"], row["head"]), {})
            cell[str(row["timestep"])] = percent(row)
        for (layer, head), values in cells.items():
            known = [values.get(t, "") for t in times]
            lines.append(f"| {' | '.join([each['model'], layer, head, *known])} |")
        beside = percent(each["beside"])
        lines.append(f"| {each['model']} | without a head | | | {beside} | |")
    return "\n".join(lines)


def draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel a model."""
    from matplotlib.figure import Figure

    from diffjax.report.feature_plots import draw_features
    from diffjax.report.plots import save_figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    for part, each in zip(figure.subfigures(1, len(found)), found, strict=True):
        axes = part.subplots()
        learned, tested = each["learned_on"]["n"], each["tested_on"]
        title = f"{each['model']} on {tested['name']}, labels of {learned:,} images"
        draw_features(axes, each["rows"], title, 0.1, each["beside"])
        low = min(row["interval"][0] for row in [*each["rows"], each["beside"]])
        axes.set_ylim(bottom=low - 0.03)
        part.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=2)
    save_figure(figure, path)


def main() -> None:
    """Run what is missing, and show all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--train", type=int, default=5000, help="labelled images")
    parser.add_argument("--test", type=int, default=2000, help="test images")
    parser.add_argument("--out", type=Path, default=Path("docs") / "features.png")
    parser.add_argument("--list", action="store_true", help="print the commands alone")
    args = parser.parse_args()
    found = []
    for data in STUDIES:
        parts = []
        for command in commands(args, data):
            print(shlex.join(["diffjax", *command]), file=sys.stderr, flush=True)
            if not args.list:
                line = [sys.executable, "-m", "diffjax", *command, "--json"]
                done = subprocess.run(line, check=True, stdout=subprocess.PIPE)
                parts.append(json.loads(done.stdout))
        if parts:
            rows = [row for part in parts for row in part["rows"]]
            found.append({**parts[0], "rows": rows})
    if found:
        draw(found, args.out)
        print(table(found))


if __name__ == "__main__":
    main()
