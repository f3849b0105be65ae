"""Diffusion against flow: the same network, trained as both, as a classifier.

    python scripts/study_flow.py --data-dir data --limit 1000 --out study-flow

Each model classifies the same images by racing, with its errors measured in the space
of the noise, of the data and of the velocity; the flow on noise levels spread evenly
(shift 1) and on those that --shifts names, which stay longer where there is much noise:
at 3 they are about as those of a linear DDPM process. The strategy's samples must spare
a flow's last index, where nothing is left of the image; those of the default do.

OUT keeps the runs, which the same command goes on with, and gets flow.md and flow.csv:
accuracy with Wilson's interval, evaluations an image, and how far each is from the
diffusion model in the space of noise, on the same images, with McNemar's exact p and
the interval of ``diffjax.report.paired``. All intervals are 95 %.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from diffjax.choices import SPACES
from diffjax.errors import DiffjaxError
from diffjax.evaluation.call import evaluate
from diffjax.files import atomic, write_text
from diffjax.report.paired import mcnemar, paired_difference
from diffjax.runs.metrics import wilson
from diffjax.runs.outcomes import outcomes

HEAD = (
    "| trained as | errors of the | shift | accuracy | evaluations "
    "| ahead of the first | p |\n|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of classifying, beside the first; shares in [0, 1]."""

    trained: str
    space: str
    shift: float | None
    images: int
    accuracy: float
    low: float
    high: float
    evaluations: float
    ahead: float
    ahead_low: float
    ahead_high: float
    p: float

    @property
    def text(self) -> str:
        """A row of the table."""

        def percent(value: float, low: float, high: float, sign: str = "") -> str:
            shown = (format(100 * x, f"{sign}.1f") for x in (value, low, high))
            return "{} % ({} to {})".format(*shown)

        cells = (
            self.trained,
            self.space,
            "" if self.shift is None else f"{self.shift:g}",
            percent(self.accuracy, self.low, self.high),
            f"{self.evaluations:.0f}",
            percent(self.ahead, self.ahead_low, self.ahead_high, "+"),
            f"{self.p:.2g}",
        )
        return f"| {' | '.join(cells)} |"


def ways(shifts: list[float]) -> Iterator[tuple[str, str, float | None]]:
    """What is compared: how it was trained, the space of errors, the shift."""
    for space in SPACES:
        yield "diffusion", space, None
    for shift in shifts:
        for space in SPACES:
            yield "flow", space, shift


def study(args: argparse.Namespace) -> list[Row]:
    """All runs, of which the first is compared with."""
    rows: list[Row] = []
    first = np.empty(0, bool)
    for trained, space, shift in ways(args.shifts):
        name = f"{trained}-{space}" + ("" if shift is None else f"-{shift:g}")
        run = evaluate(
            args.diffusion if trained == "diffusion" else args.flow,
            args.dataset,
            out=args.out / name,
            data_dir=args.data_dir,
            limit=args.limit,
            strategy=args.strategy,
            space=space,
            shift=shift,
            latent_cache=args.out / "latents",
        )
        found = outcomes(run)
        right = found.correct
        if not rows:
            first, indices = right, found.indices
        if not np.array_equal(found.indices, indices):
            raise DiffjaxError(
                f"{run.path} lacks images. The same command tries again."
            )
        low, high = wilson(int(right.sum()), len(right))
        ahead = paired_difference(right, first)
        rows.append(
            Row(
                trained=trained,
                space=space,
                shift=shift,
                images=len(right),
                accuracy=float(right.mean()),
                low=low,
                high=high,
                evaluations=run.summary["evaluations_per_image"],
                ahead=ahead.value,
                ahead_low=ahead.low,
                ahead_high=ahead.high,
                p=mcnemar(right, first),
            )
        )
        print(rows[-1].text, flush=True)
    return rows


def main() -> None:
    """Run what is missing, and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--diffusion", default="tiny-dit", help="a model")
    parser.add_argument("--flow", default="tiny-flow", help="a model")
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--limit", type=int, help="images; all by default")
    parser.add_argument("--shifts", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument(
        "--strategy", default="racing:n_samples=250:confidence=0.95", help="of all"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(HEAD, flush=True)
    try:
        rows = study(args)
    except DiffjaxError as error:
        sys.exit(f"error: {error}")
    lines = "\n".join(row.text for row in rows)
    write_text(args.out / "flow.md", f"{rows[0].images:,} images.\n\n{HEAD}\n{lines}\n")
    with (
        atomic(args.out / "flow.csv") as path,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(map(asdict, rows))


if __name__ == "__main__":
    main()
