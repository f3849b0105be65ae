"""How long `diffjax classify` takes to its first answer: wall and CPU seconds.

    python scripts/measure_startup.py --repeats 5

Runs the command on one embedded image, each time in a process of its own: with an empty
cache of compiled programs, and then with the cache that the first has left. CPU seconds
are user and system time of the process, on all cores; they depend less than wall
seconds on what else the machine does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import diffjax
from diffjax.evaluation.provenance import processor

IMAGE = Path(diffjax.__file__).parent / "assets" / "images" / "0202_ship.png"


def run(cache: str, labels: str, model: str) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    command = [sys.executable, "-m", "diffjax", "classify", str(IMAGE)]
    command += ["--labels", labels, "--model", model, "--quiet", "--json"]
    hidden = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    start = time.perf_counter()
    child = subprocess.Popen(
        command,
        env=environment | {"XDG_CACHE_HOME": cache},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    said = child.stderr.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"error: {' '.join(command)} failed:\n{said}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--labels", default="ship,airplane,frog")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    cold, warm = [], []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(run(cache, args.labels, args.model))
            warm.append(run(cache, args.labels, args.model))
    result = {
        name: {
            "wall": median(wall for wall, _ in times),
            "cpu": median(cpu for _, cpu in times),
        }
        for name, times in (("cold", cold), ("warm", warm))
    }
    result |= {"repeats": args.repeats, "cores": os.cpu_count()}
    result |= {"processor": processor()}
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{processor()}, {os.cpu_count()} cores; median of {args.repeats}")
    for name in ("cold", "warm"):
        own = result[name]
        print(f"{name}: {own['cpu']:.1f} s of CPU, {own['wall']:.1f} s")


if __name__ == "__main__":
    main()
