"""What a decision among ImageNet's 1,000 classes costs, in FLOPs.

    python scripts/decision_flops.py

FLOPs of a decision = evaluations × FLOPs of an evaluation, for the strategies here; and
passes × FLOPs of a pass for published classifiers by autoregressive models. Three kinds
of numbers go in, and every line says which:

counted     evaluations that a strategy always takes, and the FLOPs of a tile of
            published size, as XLA counts them before it optimises (`shared_flops.py`)
scaled      evaluations measured among fewer classes (``MEASURED``), for 1,000: those of
            a race and of a shortlist that finds its k grow with the classes, at most;
            those of a shortlist with a k do not
published   passes and sizes as papers and repositories say them; the FLOPs of a pass
            follow from its size: 2 × parameters × tokens, and attention,
            2 × layers × tokens² × width where each token sees those before it

No checkpoint that knows ImageNet was at hand: nothing here is an accuracy.
"""

import argparse
from typing import NamedTuple

from shared_flops import CLASSES, flops

from diffjax.strategies import parse_strategy

IMAGENET = 1000
TERA = 1e12
OURS = ("dit-256", "sd-2-base")


class Measured(NamedTuple):
    """Evaluations an image, a gradient counted as three."""

    strategy: str
    evaluations: float
    classes: int
    grows: bool  # with the classes, in proportion
    agrees: str  # with exhaustive decisions, in per cent
    source: str


# the study of docs/strategies.md, 345 classes of QuickDraw, 32 samples
BEST = "shortlist k=20:n_samples=32:directions=8, racing"
MEASURED = (
    Measured("racing", 5241, 345, True, "99.5", "200 images"),
    Measured("shortlist auto, racing", 1125, 345, True, "99.0", "200 images"),
    Measured("shortlist k=50, racing", 957, 345, False, "95.0", "200 images"),
    Measured(BEST, 426, 345, False, "98.5", "200 images"),
)


class Transformer(NamedTuple):
    """A published autoregressive model.

    RandAR (arXiv 2412.01827) has the sizes of LlamaGen (arXiv 2406.06525): 256 tokens
    an image of 256 pixels, before each a token that says its place. VAR (arXiv
    2404.02905, README of FoundationVision/VAR) has 1² + 2² + 3² + 4² + 5² + 6² + 8² +
    10² + 13² + 16² tokens, and 64 × depth channels.
    """

    name: str
    parameters: float
    tokens: int
    layers: int
    width: int

    @property
    def flops(self) -> float:
        """Of one pass over all tokens, under one class."""
        n = self.tokens
        return 2 * self.parameters * n + 2 * self.layers * n**2 * self.width


VAR_TOKENS = sum(side**2 for side in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
RANDAR = (
    Transformer("RandAR-L", 343e6, 2 * 256, 24, 1024),
    Transformer("RandAR-XL", 775e6, 2 * 256, 36, 1280),
)
VAR = (
    Transformer("VAR-d16", 310e6, VAR_TOKENS, 16, 1024),
    Transformer("VAR-d20", 600e6, VAR_TOKENS, 20, 1280),
    Transformer("VAR-d24", 1.0e9, VAR_TOKENS, 24, 1536),
    Transformer("VAR-d30", 2.0e9, VAR_TOKENS, 30, 1920),
)
ORDERS = 20  # arXiv 2603.19122, and the command of yandex-research/ar-classifier
# classifiers by the networks that are used here
HDC = "up to 60 % less, here than the stages (arXiv 2411.12073)"
NOOP = "5 to 10, learned from labels (arXiv 2508.11330)"
BIGAIN = "5 and 20 samples, before tokens are merged (arXiv 2603.12240)"
FULL, PARTIAL = 19, 100  # passes of A-VARC+ among 100 classes (arXiv 2510.12060)


def counted() -> list[tuple[str, int]]:
    """Evaluations of strategies that always take as many."""
    stages = "staged:to_keep=500,50,10,1:n_samples=50,100,500,1000"
    found = []
    for text in ("exhaustive:n_samples=250", f"{stages}:order=official"):
        strategy = parse_strategy(text)
        state = strategy.start(IMAGENET, 1000, list(range(IMAGENET)))
        found.append((text, strategy.remaining(state)))
    return found


def tera(value: float) -> str:
    """TFLOP: three digits of them."""
    digits = f"{value / TERA:.3g}"
    return f"{float(digits):,.0f}" if float(digits) >= 100 else digits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    evaluation = [flops(name, None, CLASSES)[1] / CLASSES for name in OURS]
    told = ", ".join(
        f"{name} {each / TERA:.3f}" for name, each in zip(OURS, evaluation, strict=True)
    )
    print(f"TFLOP an evaluation, of {CLASSES} classes: {told}\n")
    print("| 1,000 classes | evaluations | TFLOP, DiT-XL/2 | TFLOP, SD 2 | known how |")
    print("|---|---|---|---|---|")
    staged = 0
    for name, evaluations in counted():
        costs = " | ".join(tera(evaluations * each) for each in evaluation)
        print(f"| `{name}` | {evaluations:,} | {costs} | counted |")
        staged = evaluations
    for each in MEASURED:
        evaluations = each.evaluations
        how = f"as among {each.classes} classes"
        if each.grows:
            evaluations *= IMAGENET / each.classes
            how = f"scaled from {each.evaluations:,} among {each.classes} classes"
        costs = " | ".join(tera(evaluations * one) for one in evaluation)
        how += f" ({each.source}, agrees in {each.agrees} %)"
        print(f"| {each.strategy} | {evaluations:,.0f} | {costs} | {how} |")
    for name, evaluations, how in (
        ("HDC, a label tree", 0.4 * staged, HDC),
        ("NoOp, ten learned noises", 10 * IMAGENET, NOOP),
        ("BiGain, 37 classes of Pets", 37 * 5 + 5 * (20 - 5), BIGAIN),
    ):
        costs = " | ".join(tera(evaluations * one) for one in evaluation)
        print(f"| {name} | {evaluations:,.0f} | {costs} | published: {how} |")

    print(
        "\n| published | TFLOP a pass | passes | TFLOP a decision |\n|---|---|---|---|"
    )
    for model in RANDAR:
        passes = ORDERS * IMAGENET
        print(
            f"| {ORDERS} orders of {model.name}, 1,000 classes | "
            f"{model.flops / TERA:.3f} | {passes:,} | {tera(passes * model.flops)} |"
        )
    for model in VAR:
        least, most = (tera(n * model.flops) for n in (FULL, FULL + PARTIAL))
        print(
            f"| A-VARC+ of {model.name}, 100 classes | {model.flops / TERA:.3f} | "
            f"{FULL} and {PARTIAL} partial | {least} to {most} |"
        )


if __name__ == "__main__":
    main()
