"""What learned samples are worth: by number, in races, and carried to other classes.

    python scripts/study_learned.py RUN

RUN has the errors of labelled images under shared noise (`diffjax learn`). All figures
are of images that had no say in the samples that decide them: five folds, or classes
that were left out. "even" stands for samples that are spread evenly, with one weight.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from diffjax.runs.folder import read_run
from diffjax.runs.learning import Choice, Examples, choose, even, folds, read_examples
from diffjax.runs.metrics import wilson
from diffjax.strategies.base import Request, Samples, State, run
from diffjax.strategies.racing import Racing

COUNTS = (2, 3, 4, 5, 8, 10, 12, 16)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--floor", type=int, default=2)
    parser.add_argument("--confidence", type=float, default=0.9)
    args = parser.parse_args()
    examples = read_examples(read_run(args.run))
    n, c, S = examples.excess.shape
    print(f"{n} images, {c + 1} classes, {S} samples; {S} even: ", end="")
    print(share(even(S, S).right(examples.excess)))
    racing = Racing(floor=args.floor, chunk=1, confidence=args.confidence)

    print("\nsamples  even  learned  | a race on the learned: evaluations, accuracy")
    right = {k: np.zeros(n, bool) for k in COUNTS}
    raced = {k: np.zeros((n, 2)) for k in COUNTS}
    for fold in folds(examples.labels):
        choices = choose(np.delete(examples.excess, fold, axis=0), max(COUNTS))
        for k in COUNTS:
            choice = choices[min(k, len(choices)) - 1]
            right[k][fold] = choice.right(examples.excess[fold])
            for i in fold:
                raced[k][i] = race(racing, examples.excess[i], choice)
    for k in COUNTS:
        evaluations, ends = raced[k].T
        plain = share(even(S, k).right(examples.excess))
        print(f"{k:7}  {plain}  {share(right[k])}  | ", end="")
        print(f"{evaluations.mean():.1f}  {share(ends)}")

    print("\nlearned on one half of the classes, used on the other")
    half = (c + 1) // 2
    halves = [range(half), range(half, c + 1)]
    for k in COUNTS:
        cells = [carried(examples, *pair, k) for pair in (halves, halves[::-1])]
        texts = [np.concatenate(each) for each in zip(*cells, strict=True)]
        names = ("even", "of the other half", "of the same half, folds")
        print(
            f"{k:7}  "
            + "  ".join(f"{a}: {share(b)}" for a, b in zip(names, texts, strict=True))
        )


def carried(
    examples: Examples, there: Sequence[int], here: Sequence[int], k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which images of ``here`` are right: even, learned ``there``, learned here."""
    mine = examples.among(here).excess
    labels = examples.among(here).labels
    other = choose(examples.among(there).excess, k)[-1]
    own = np.zeros(len(mine), bool)
    for fold in folds(labels):
        own[fold] = choose(np.delete(mine, fold, axis=0), k)[-1].right(mine[fold])
    return even(mine.shape[2], k).right(mine), other.right(mine), own


def race(
    racing: Racing, excess: Float[np.ndarray, "c S"], choice: Choice
) -> tuple[float, float]:
    """Evaluations of a race on one image, and whether its winner is the label."""
    k = len(choice.samples)
    # the label is the first row, which all others exceed by so much
    table = np.vstack([np.zeros(k), excess[:, choice.samples]]).astype(np.float32)
    given = Samples(
        timesteps=choice.samples, noises=choice.samples, weights=choice.weights
    )

    def evaluate(state: State, request: Request) -> np.ndarray:
        cells: np.ndarray = table[np.ix_(request.classes, request.samples)]
        return cells

    state = run(racing, len(table), excess.shape[1], evaluate, given=given)
    decision = racing.decide(state)
    return decision.n_evaluations, decision.winner == 0


def share(right: np.ndarray) -> str:
    """A proportion of images in percent, with Wilson's interval."""
    low, high = wilson(int(right.sum()), len(right))
    return f"{100 * right.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


if __name__ == "__main__":
    main()
