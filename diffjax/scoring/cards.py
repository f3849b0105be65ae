"""NVIDIA's GPUs as XLA's compiler has to be told of them, where none is there to ask.

The figures are those that a card tells of itself, as XLA's repository has them of cards
it was tried on (openxla/xla, xla/backends/gpu/target_config/specs); they agree with
NVIDIA's papers on the A100, H100 and H200. What is not said here is alike on all.
"""

from dataclasses import dataclass, replace


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
            # numbers here are of every card with these compute capabilities
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "shared_memory_per_block": 48 * 2**10,  # unless a kernel asks for more
            "shared_memory_per_block_optin": self.shared_of_block,
            "shared_memory_per_core": self.shared,
            "threads_per_core_limit": 2048,
            "core_count": self.processors,
            "fpus_per_core": self.lanes,
            "registers_per_core_limit": 2**16,
            "registers_per_block_limit": 2**16,
            "l2_cache_size": self.cache,
            "clock_rate_ghz": self.clock,
            "device_memory_size": self.memory,
            "memory_bandwidth": self.bandwidth,
            "block_dim_limit_x": 2**31 - 1,  # of a grid
            "block_dim_limit_y": 2**16 - 1,
            "block_dim_limit_z": 2**16 - 1,
            "thread_dim_limit_x": 1024,  # of a block
            "thread_dim_limit_y": 1024,
            "thread_dim_limit_z": 64,
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
                # the oldest that current releases of JAX accept
                "dnn_version_info { major: 9 minor: 10 }",
                f'device_description_str: "{self.name}"',
            ]
        )


_A100 = Card(
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
)
_H100 = Card(
    name="NVIDIA H100 80GB HBM3",
    compute_capability=(9, 0),
    processors=132,
    lanes=128,
    shared=228 * 2**10,
    shared_of_block=227 * 2**10,
    cache=50 * 2**20,
    clock=1.98,
    memory=84_942_979_072,
    bandwidth=3_352_320_000_000,
)
_H200 = replace(
    _H100, name="NVIDIA H200", memory=151_397_597_184, bandwidth=4_800_000_000_000
)
CARDS = {"a100": _A100, "h100": _H100, "h200": _H200}
