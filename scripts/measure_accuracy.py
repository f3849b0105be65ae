"""Measure a model's zero-shot accuracy on the first test images of CIFAR-10.

    python scripts/measure_accuracy.py --data-dir DIR --out runs/tiny-cifar10.jsonl

DIR holds a tensorflow-datasets directory of CIFAR-10 (scripts/prepare_cifar10.py makes
one). "First" is by the images' original index in the test split. A line of OUT is an
image; a second call goes on where the first one stopped.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import sys
from pathlib import Path

import jax
import numpy as np
from rich.progress import track

import diffjax
from diffjax.classifier import DiffusionClassifier
from diffjax.data.prompts import CIFAR10_TEMPLATE
from diffjax.data.tfds import open_tfds
from diffjax.errors import DiffjaxError

Z = 1.96  # of a 95 % interval


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927)."""
    p = correct / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return centre - half, centre + half


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--template", default=CIFAR10_TEMPLATE)
    parser.add_argument(
        "--strategy", default="staged:to_keep=5,1:n_samples=10,50:order=nested"
    )
    parser.add_argument("--loss", default="l2")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        measure(args)
    except DiffjaxError as error:
        sys.exit(f"error: {error}")


def measure(args: argparse.Namespace) -> None:
    classifier = DiffusionClassifier.from_pretrained(
        args.model, strategy=args.strategy, loss=args.loss, seed=args.seed
    )
    settings = {
        "model": args.model,
        "weights": digest(classifier),
        "diffjax": diffjax.__version__,
        "jax": jax.__version__,
        "strategy": args.strategy,
        "loss": args.loss,
        "template": args.template,
        "seed": args.seed,
    }
    rows = read_rows(args.out, settings)
    done = {row["id"] for row in rows}
    source = open_tfds("cifar10", "test", args.data_dir)
    # tensorflow-datasets shuffles on preparation; the id keeps the original index
    first = sorted(source, key=lambda record: record.id)[: args.images]

    candidates = classifier.candidates(source.class_names, args.template)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a", encoding="utf-8") as file:
        if not rows:
            print(json.dumps(settings), file=file, flush=True)
        for record in track([r for r in first if r.id not in done]):
            result = classifier.classify(record.image, candidates)
            row = {
                "id": record.id,
                "label": source.class_names[record.label],
                "prediction": result.label,
                "evaluations": result.evaluations,
                "seconds": result.seconds,
            }
            rows.append(row)
            print(json.dumps(row), file=file, flush=True)

    wanted = {record.id for record in first}
    report([row for row in rows if row["id"] in wanted], settings)


def digest(classifier: DiffusionClassifier) -> str:
    """Of the denoiser's weights: a name can come to mean others."""
    leaves = jax.tree.leaves(classifier.model.denoiser.state)
    content = b"".join(np.asarray(leaf).tobytes() for leaf in leaves)
    return hashlib.sha256(content).hexdigest()[:16]


def machine() -> str:
    """The processor and how many of its cores there are."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2] for line in lines if "model name" in line]
        name = models[0].strip() if models else name
    return f"{name}, {os.cpu_count()} cores, {jax.default_backend()}"


def read_rows(path: Path, settings: dict) -> list[dict]:
    """The images of an earlier call, if it had the same settings."""
    if not path.exists() or not path.stat().st_size:
        return []
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):  # a line that was cut off is done again
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    if not lines:
        return []
    if lines[0] != settings:
        raise DiffjaxError(
            f"{path} holds images of other settings ({lines[0]}); name another file"
        )
    return lines[1:]


def report(rows: list[dict], settings: dict) -> None:
    n = len(rows)
    correct = sum(row["label"] == row["prediction"] for row in rows)
    low, high = wilson(correct, n)
    seconds = sorted(row["seconds"] for row in rows)
    evaluations = sum(row["evaluations"] for row in rows) / n
    for name, value in settings.items():
        print(f"{name:12} {value}")
    print(f"{'machine':12} {machine()}")
    print(f"{'images':12} {n}")
    print(f"{'accuracy':12} {correct / n:.1%}  (95 %: {low:.1%} to {high:.1%})")
    print(f"{'evaluations':12} {evaluations:.0f} an image")
    print(f"{'seconds':12} {seconds[n // 2]:.2f} an image (median)")


if __name__ == "__main__":
    main()
