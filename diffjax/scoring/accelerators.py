"""What is published of accelerators, to compare programs with that were not run."""

from dataclasses import dataclass

from diffjax.errors import unknown
from diffjax.scoring.cards import CARDS, Card

# Products of float32 are made of six of bfloat16 (Henry et al. 2019, arXiv 1904.06376;
# XLA's BF16_BF16_F32_X6, which is what the highest precision means on a TPU).
TPU_PASSES_OF_FLOAT32 = 6
# JAX takes so much of an NVIDIA GPU when it starts (XLA_PYTHON_CLIENT_MEM_FRACTION).
SHARE_OF_A_CARD = 0.75


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One device, as its maker describes it.

    Attributes:
        platform: of JAX's compilers: "tpu" or "cuda".
        memory: bytes that JAX can use.
        bandwidth: of that memory, bytes/s.
        flops: FLOP/s of dense matrix products at best, by number type.
        machine: the largest arrangement of devices that one machine holds.
        source: where these figures stand.
        card: what its compiler has to be told, of NVIDIA's.
    """

    platform: str
    memory: int
    bandwidth: float
    flops: dict[str, float]
    machine: tuple[int, ...]
    source: str
    card: Card | None = None

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        """Of NVIDIA's; None of others."""
        return None if self.card is None else self.card.compute_capability


def _tpu(
    memory: int,
    bandwidth: float,
    bfloat16: float,
    machine: tuple[int, ...],
    page: str,
) -> Accelerator:
    return Accelerator(
        platform="tpu",
        memory=memory,
        bandwidth=bandwidth,
        flops={"bfloat16": bfloat16, "float32": bfloat16 / TPU_PASSES_OF_FLOAT32},
        machine=machine,
        source=f"https://docs.cloud.google.com/tpu/docs/{page}",
    )


def _nvidia(name: str, half: float, float32: float, page: str) -> Accelerator:
    card = CARDS[name]
    return Accelerator(
        platform="cuda",
        memory=int(SHARE_OF_A_CARD * card.memory),
        bandwidth=float(card.bandwidth),
        flops={"bfloat16": half, "float16": half, "float32": float32},
        machine=(1, 1, 8),
        source=f"https://www.nvidia.com/en-us/data-center/{page}",
        card=card,
    )


ACCELERATORS = {
    "v5e": _tpu(16 * 10**9, 819e9, 197e12, (2, 4), "v5e"),
    "v5p": _tpu(95 * 10**9, 2765e9, 459e12, (2, 2, 1), "v5p"),
    "v6e": _tpu(32 * 10**9, 1638e9, 918e12, (2, 4), "v6e"),
    "a100": _nvidia("a100", 312e12, 19.5e12, "a100"),
    "h100": _nvidia("h100", 989e12, 67e12, "h100"),
    "h200": _nvidia("h200", 989e12, 67e12, "h200"),
}


def accelerator(name: str) -> Accelerator:
    """A row of ``ACCELERATORS``; DiffjaxError if there is none."""
    if name not in ACCELERATORS:
        raise unknown("accelerator", name, ACCELERATORS)
    return ACCELERATORS[name]
