"""NVIDIA's GPUs as XLA's compiler has to be told of them, where none is there to ask.

The figures are those that a card tells of itself, as XLA's repository has them of cards
it was tried on (openxla/xla, xla/backends/gpu/target_config/specs); they agree with
NVIDIA's papers on the A100, H100 and H200. What is not said here is alike on all.
"""

from dataclasses import dataclass

# Of every card with these compute capabilities.
THREADS_OF_BLOCK = 1024
THREADS_OF_PROCESSOR = 2048
WARP = 32
REGISTERS = 2**16
SHARED_OF_BLOCK = 48 * 2**10  # unless a kernel asks for more
GRID = (2**31 - 1, 2**16 - 1, 2**16 - 1)  # blocks along each axis, at most
BLOCK = (1024, 1024, 64)  # threads along each axis, at most
CUDNN = (9, 10)  # the oldest that current releases of JAX accept


@dataclass(frozen=True, kw_only=True)
class Card:
    """What sets a GPU apart for its compiler.

    Attributes:
        name: as its driver gives it.
        compute_capability: major and minor; (9, 0) is Hopper.
        processors: streaming multiprocessors.
        lanes: float32 units of a processor.
        shared: bytes of shared memory of a processor.
        shared_of_block: bytes of it that one block can ask for.
        cache: bytes of the second-level cache.
        clock: GHz.
        memory: bytes.
        bandwidth: of the memory, bytes/s.
    """

    name: str
    compute_capability: tuple[int, int]
    processors: int
    lanes: int
    shared: int
    shared_of_block: int
    cache: int
    clock: float
    memory: int
    bandwidth: int

    @property
    def description(self) -> str:
        """XLA's GpuTargetConfigProto, as text."""
        major, minor = self.compute_capability
        # wgmma and the like, which Hopper has of its own
        features = "ACCELERATED_FEATURES" if major == 9 else "NONE"
        info = {
            "threads_per_block_limit": THREADS_OF_BLOCK,
            "threads_per_warp": WARP,
            "shared_memory_per_block": SHARED_OF_BLOCK,
            "shared_memory_per_block_optin": self.shared_of_block,
            "shared_memory_per_core": self.shared,
            "threads_per_core_limit": THREADS_OF_PROCESSOR,
            "core_count": self.processors,
            "fpus_per_core": self.lanes,
            "registers_per_core_limit": REGISTERS,
            "registers_per_block_limit": REGISTERS,
            "l2_cache_size": self.cache,
            "clock_rate_ghz": self.clock,
            "device_memory_size": self.memory,
            "memory_bandwidth": self.bandwidth,
            **{f"block_dim_limit_{x}": n for x, n in zip("xyz", GRID, strict=True)},
            **{f"thread_dim_limit_{x}": n for x, n in zip("xyz", BLOCK, strict=True)},
        }
        lines = [f"  {key}: {value}" for key, value in info.items()]
        capability = f"major: {major} minor: {minor} feature_extension: {features}"
        return "\n".join(
            [
                "gpu_device_info {",
                *lines,
                f"  cuda_compute_capability {{ {capability} }}",
                "}",
                'platform_name: "CUDA"',
                f"dnn_version_info {{ major: {CUDNN[0]} minor: {CUDNN[1]} }}",
                f'device_description_str: "{self.name}"',
            ]
        )


def _hopper(name: str, memory: int, bandwidth: int) -> Card:
    return Card(
        name=name,
        compute_capability=(9, 0),
        processors=132,
        lanes=128,
        shared=228 * 2**10,
        shared_of_block=227 * 2**10,
        cache=50 * 2**20,
        clock=1.98,
        memory=memory,
        bandwidth=bandwidth,
    )


CARDS = {
    "a100": Card(
        name="NVIDIA A100-SXM4-80GB",
        compute_capability=(8, 0),
        processors=108,
        lanes=64,
        shared=164 * 2**10,
        shared_of_block=163 * 2**10,
        cache=40 * 2**20,
        clock=1.41,
        memory=85_100_068_864,
        bandwidth=2_039_040_000_000,
    ),
    "h100": _hopper("NVIDIA H100 80GB HBM3", 84_942_979_072, 3_352_320_000_000),
    "h200": _hopper("NVIDIA H200", 151_397_597_184, 4_800_000_000_000),
}
