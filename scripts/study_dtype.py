"""Whether a dtype decides as float32 does: the same cells, evaluated in both.

    python scripts/study_dtype.py --data-dir data --limit 150 --n-samples 16

Every image is classified by all samples and by racing, in float32 and in DTYPE, with
the same noise. Told are how often the decisions agree (intervals are Wilson's, 95 %);
how far the errors of cells are from float32's, relative to them; how far the
differences between classes on the same sample are, which decide, relative to their
spread; and how sure float32 was where the other decided otherwise.
"""

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.seen import Encoded
from diffjax.errors import DiffjaxError
from diffjax.evaluation.experiment import Experiment
from diffjax.runs.metrics import wilson


def classify(
    model: str, dtype: str, strategy: str, experiment: Experiment, data_dir: str | None
) -> tuple[dict[int, Any], np.ndarray, float]:
    """Records by image, labels, and seconds."""
    classifier = DiffusionClassifier.from_pretrained(
        model, dtype=dtype, strategy=strategy
    )
    task = experiment.task(data_dir)
    candidates = task.candidates(classifier)
    examples = [task.source[int(i)] for i in task.indices]

    def encoded(key: int) -> tuple[int, Encoded]:
        pixels = classifier.pixels(examples[key].image)
        z0 = np.asarray(classifier.model.latent(pixels))
        return key, Encoded(pixels=pixels, z0=z0, key=key)

    start = time.perf_counter()
    scored = classifier.score(map(encoded, range(len(examples))), candidates)
    records = {}
    for key, record in scored:
        if isinstance(record, Exception):
            raise DiffjaxError(f"image {key} in {dtype}: {record}")
        records[key] = record
    seconds = time.perf_counter() - start
    return records, np.array([example.label for example in examples]), seconds


def compare(theirs: np.ndarray, ours: np.ndarray) -> dict[str, float]:
    """Of errors [images, classes, samples] in float32 and in the other dtype."""
    relative = np.abs(ours - theirs) / theirs
    apart = [e - e.mean(axis=1, keepdims=True) for e in (theirs, ours)]
    return {
        "cells_median": float(np.median(relative)),
        "cells_worst": float(relative.max()),
        "bias": float((ours - theirs).mean() / theirs.mean()),
        "differences": float(np.sqrt(((apart[1] - apart[0]) ** 2).mean()))
        / float(apart[0].std()),
    }


def leads(errors: np.ndarray, winners: np.ndarray, others: np.ndarray) -> list[float]:
    """How far float32's winner is ahead of another, in standard errors; worst first.

    Args:
        errors: in float32 [images, classes, samples].
        winners: by float32.
        others: by the other dtype.
    """
    found = []
    for table, first, second in zip(errors, winners, others, strict=True):
        if first != second:
            apart = table[second] - table[first]
            found.append(float(apart.mean() / apart.std(ddof=1) * len(apart) ** 0.5))
    return sorted(found, reverse=True)


def rate(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{100 * k / n:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir")
    parser.add_argument("--template", default="a blurry photo of a {}.")
    parser.add_argument("--limit", type=int, default=150, help="images")
    parser.add_argument("--n-samples", type=int, default=16, help="of each class")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    experiment = Experiment(
        dataset=args.dataset, limit=args.limit, template=(args.template,)
    )
    result: dict[str, Any] = {"model": args.model, "dtype": args.dtype}
    try:
        for kind in ("exhaustive", "racing"):
            text = f"{kind}:n_samples={args.n_samples}"
            runs = [
                classify(args.model, dtype, text, experiment, args.data_dir)
                for dtype in ("float32", args.dtype)
            ]
            theirs, labels, _ = runs[0]
            keys = sorted(theirs)
            table = [[r[k].table.errors for k in keys] for r, _, _ in runs]
            winners = [
                np.array([r[k].decision.winner for k in keys]) for r, _, _ in runs
            ]
            result[kind] = {
                "strategy": text,
                "images": len(keys),
                "agree": int((winners[0] == winners[1]).sum()),
                "right": [int((w == labels).sum()) for w in winners],
                "seconds": [seconds for _, _, seconds in runs],
            }
            if kind == "exhaustive":
                result[kind] |= compare(np.array(table[0]), np.array(table[1]))
                result[kind]["leads"] = leads(np.array(table[0]), *winners)
    except DiffjaxError as error:
        sys.exit(f"error: {error}")
    if args.json:
        print(json.dumps(result, indent=1))
        return
    for kind in ("exhaustive", "racing"):
        own = result[kind]
        n = own["images"]
        print(f"{own['strategy']}: agrees on {rate(own['agree'], n)} of {n} images")
        accuracy = ", ".join(f"{100 * k / n:.1f} %" for k in own["right"])
        print(f"  accuracy in float32 and {args.dtype}: {accuracy}")
    own = result["exhaustive"]
    print(
        f"cells: off by {own['cells_median']:.2g} (median), {own['cells_worst']:.2g} "
        f"(worst) of themselves; on average by {own['bias']:+.2g}"
    )
    if own["leads"]:
        print(
            f"where they decide apart, float32's winner is {own['leads'][0]:.2g} "
            "standard errors ahead at most"
        )
    print(
        f"differences between classes: off by {own['differences']:.2g} of their "
        "spread (root mean square)"
    )


if __name__ == "__main__":
    main()
