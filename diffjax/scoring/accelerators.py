"""What is published of accelerators, to compare programs with that were not run."""

from dataclasses import dataclass

from diffjax.errors import unknown

# Products of float32 are made of six of bfloat16 (Henry et al. 2019, arXiv 1904.06376;
# XLA's BF16_BF16_F32_X6, which is what the highest precision means on a TPU).
TPU_PASSES_OF_FLOAT32 = 6


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One device, as its maker describes it.

    Attributes:
        platform: of JAX's compilers: "tpu" or "cuda".
        memory: bytes.
        bandwidth: of that memory, bytes/s.
        flops: FLOP/s of dense matrix products at best, by number type.
        machine: the largest arrangement of devices that one machine holds.
        source: where these figures stand.
        compute_capability: of NVIDIA's.
    """

    platform: str
    memory: int
    bandwidth: float
    flops: dict[str, float]
    machine: tuple[int, ...]
    source: str
    compute_capability: tuple[int, int] | None = None


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


ACCELERATORS = {
    "v5e": _tpu(16 * 10**9, 819e9, 197e12, (2, 4), "v5e"),
    "v5p": _tpu(95 * 10**9, 2765e9, 459e12, (2, 2, 1), "v5p"),
    "v6e": _tpu(32 * 10**9, 1638e9, 918e12, (2, 4), "v6e"),
}


def accelerator(name: str) -> Accelerator:
    """A row of ``ACCELERATORS``; DiffjaxError if there is none."""
    if name not in ACCELERATORS:
        raise unknown("accelerator", name, ACCELERATORS)
    return ACCELERATORS[name]
