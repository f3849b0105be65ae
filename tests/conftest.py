"""Two simulated CPU devices, so that sharding is always on; no network.

Compilation is most of the suite's time. Programs are compiled without what makes them
fast, and kept in pytest's cache: the next run is several times as fast
(`pytest --cache-clear` forgets them). What the tests prove does not depend on either.
"""

import os
from pathlib import Path

# processes that tests start find the helpers here as well
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).parents[1] / ".pytest_cache" / "d" / "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax

jax.config.update("jax_num_cpu_devices", 2)
