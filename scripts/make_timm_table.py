"""Write the package's table of timm's accuracies on ImageNet and its relatives.

    git clone https://github.com/huggingface/pytorch-image-models
    python scripts/make_timm_table.py pytorch-image-models/results

A line a model, evaluated at the image size at which it is best on ImageNet; top-1 in
percent, as published. Two accuracies are on ImageNet among the classes of another set:
timm publishes those of ImageNet-A's 200 classes as a file, those of ImageNet-R's as the
difference to the accuracy on ImageNet-R.
"""

import argparse
import csv
import re
from decimal import Decimal
from pathlib import Path

TABLE = Path(__file__).parents[1] / "diffjax" / "assets" / "timm" / "imagenet.csv"
FILES = {  # column: file of results
    "imagenet": "results-imagenet.csv",
    "imagenet_v2": "results-imagenetv2-matched-frequency.csv",
    "imagenet_sketch": "results-sketch.csv",
    "among_a": "results-imagenet-a-clean.csv",
    "imagenet_a": "results-imagenet-a.csv",
    "among_r": "results-imagenet-r.csv",
    "imagenet_r": "results-imagenet-r.csv",
}
# Tags of weights, what follows the dot of a name, that tell of images besides
# ImageNet-1k's: data sets, programs that were trained on others, SSLD (distilled on
# images of ImageNet-22k), and the student of timm's only BiT teacher of ImageNet-21k.
MORE = re.compile(
    r"in12k|in2[12]k|jft|ig1b|yfcc|laion|openai|webli|clip|seer|swag|m30m|m38m"
    r"|ssld|goog_distilled"
)

Row = dict[str, str]


def read(path: Path) -> dict[tuple[str, str], Row]:
    """The rows of a file of results, by model and image size."""
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["model"], row["img_size"]): row for row in csv.DictReader(file)}


def table(results: Path) -> list[Row]:
    """A row a model that has all accuracies but perhaps that on ImageNet-A.

    The ResNet-50 by which the images of ImageNet-A were chosen gets none right, and is
    not in timm's file.
    """
    known = {name: read(results / file) for name, file in FILES.items()}
    best: dict[str, tuple[str, str]] = {}
    for key, row in known["imagenet"].items():
        if any(key not in rows for name, rows in known.items() if name != "imagenet_a"):
            continue
        kept = best.get(key[0])
        top = Decimal(row["top1"])
        if kept is None or top > Decimal(known["imagenet"][kept]["top1"]):
            best[key[0]] = key
    made = []
    for model in sorted(best):
        key = best[model]
        top = {
            name: Decimal(rows[key]["top1"])
            for name, rows in known.items()
            if key in rows
        }
        top["among_r"] -= Decimal(known["among_r"][key]["top1_diff"])
        more = MORE.search(model.partition(".")[2]) is not None
        made.append(
            {"model": model, "more_images": str(int(more))}
            | {name: f"{top[name]:f}" if name in top else "" for name in FILES}
        )
    return made


def text(rows: list[Row]) -> str:
    """As a CSV file, without zeros at the ends of numbers."""
    lines = [",".join(rows[0])]
    for row in rows:
        numbers = [re.sub(r"(\.\d*?)0+$", r"\1", row[n]).rstrip(".") for n in FILES]
        lines.append(",".join([row["model"], row["more_images"], *numbers]))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="timm's folder of results")
    parser.add_argument("--out", type=Path, default=TABLE)
    args = parser.parse_args()
    args.out.write_text(text(table(args.results)), encoding="utf-8")
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
