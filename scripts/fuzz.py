"""Damage files of every kind that the program reads, and see what it says.

    python scripts/fuzz.py --inputs 300              # all kinds; hours on two cores
    python scripts/fuzz.py prompts image-png         # some kinds
    python scripts/fuzz.py prompts --seed 17 --inputs 1 --keep /tmp/case

For each kind of ``fuzz_kinds`` sound files are written, one is damaged by a mutation of
``fuzz_mutations``, and the kind's reader runs on it: in a process that reads many
inputs one after the other, with a deadline for each and a limit of memory. What came of
it is counted:

    fine        read, as it may be where the damage is not to the meaning
    refused     a DiffjaxError: the command line prints it and exits with code 2
    traceback   any other exception
    unclear     a DiffjaxError without the name of a file, or longer than a page
    silent      read, without a word, as other values than the sound file's, where a
                checksum would have told
    memory      more memory than the limit
    hang        no end before the deadline
    crash       the process died

All but the first two are faults; the command lists them and then exits with code 1. An
input is known by kind and seed alone.
"""

import argparse
import contextlib
import importlib
import json
import os
import queue
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fuzz_mutations import BYTES, MUTATIONS

GOOD = ("fine", "refused")
BAD = ("traceback", "unclear", "silent", "memory", "hang", "crash")
DEADLINE_SECONDS = 60.0
START_SECONDS = 300.0  # for imports and the sound example
LIMIT_BYTES = {False: 6 * 2**30, True: 32 * 2**30}  # of addresses; by Kind.heavy
GROWTH_BYTES = 3 * 2**29  # of memory by one input
LONGEST = 3000  # characters of a message


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one input.

    Attributes:
        kind: of input.
        seed: of the damage.
        result: one of ``GOOD`` or ``BAD``.
        what: the file and the mutation.
        detail: the message, or the end of the traceback.
    """

    kind: str
    seed: int
    result: str
    what: str
    detail: str


class Bench:
    """A kind's sound files, and one damaged copy at a time."""

    def __init__(self, name: str, kind: Any, folder: Path) -> None:
        self.name, self.kind = name, kind
        self._sound, self._case = folder / "sound", folder / "case"
        self._sound.mkdir(parents=True)
        kind.write(self._sound)
        self._files = sorted(
            (path.relative_to(self._sound), form)
            for pattern, form in kind.damaged.items()
            for path in self._sound.glob(pattern)
            if path.is_file()
        )
        assert self._files, f"{name} has no files to damage"
        self.prepare()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._value = kind.read(self._case)  # a sound file must be read

    def prepare(self) -> Path:
        """A sound copy."""
        shutil.rmtree(self._case, ignore_errors=True)
        shutil.copytree(self._sound, self._case)
        return self._case

    def damage(self, seed: int) -> tuple[str, bool]:
        """Damage the copy; what was done, and whether checksums could tell."""
        rng = random.Random(f"{self.name} {seed}")
        file, form = rng.choice(self._files)
        mutation = rng.choice(sorted(MUTATIONS[form]))
        path = self.prepare() / file
        data = path.read_bytes()
        done = MUTATIONS[form][mutation](data, rng)
        path.write_bytes(done)
        changed = "" if done != data else " (unchanged)"
        return f"{file}: {mutation}{changed}", mutation in BYTES and mutation != "other"

    def examine(self, seed: int, deadline: float = DEADLINE_SECONDS) -> Outcome:
        """Damage and read."""
        from diffjax.errors import DiffjaxError

        what, telling = self.damage(seed)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        result, detail = "fine", ""
        told: list[Any] = []
        try:
            with (
                _deadline(deadline),
                warnings.catch_warnings(record=True) as told,
            ):
                warnings.simplefilter("always")
                value = self.kind.read(self._case)
        except DiffjaxError as error:
            detail = str(error)
            clear = 0 < len(detail) < LONGEST
            result = "refused" if clear else "unclear"
            detail = detail[:LONGEST]
        except MemoryError:
            result, detail = "memory", _last_lines()
        except _TooLateError:
            result, detail = "hang", _last_lines()
        except Exception:
            result, detail = "traceback", _last_lines()
        else:
            differs = repr(value) != repr(self._value)
            if self.kind.checked and telling and differs and not told:
                result, detail = "silent", "other values than the sound file's"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        if grown > GROWTH_BYTES:
            result, detail = "memory", f"{grown / 2**30:.1f} GiB more"
        return Outcome(
            kind=self.name, seed=seed, result=result, what=what, detail=detail
        )


class _TooLateError(BaseException):
    """Not to be caught by what is examined."""


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """An exception when it is over; code that never returns to Python is not met."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(*_: object) -> None:
        raise _TooLateError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _last_lines() -> str:
    return "".join(traceback.format_exc().splitlines(keepends=True)[-8:])[-1500:]


def in_this_process(
    name: str, kind: Any, seeds: Sequence[int], folder: Path
) -> list[Outcome]:
    """Examine without a process of its own: quick, but a crash is the caller's."""
    bench = Bench(name, kind, folder)
    return [bench.examine(seed) for seed in seeds]


def work(
    module: str, name: str, seeds: Sequence[int], folder: Path, deadline: float
) -> None:
    """A process that examines inputs and tells of each on a line."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else is printed
    kind = importlib.import_module(module).KINDS[name]
    limit = LIMIT_BYTES[kind.heavy]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    bench = Bench(name, kind, folder)
    print("ready", file=out, flush=True)
    for seed in seeds:
        print(json.dumps(asdict(bench.examine(seed, deadline))), file=out, flush=True)


def in_processes(
    module: str, name: str, seeds: Sequence[int], deadline: float = DEADLINE_SECONDS
) -> Iterator[Outcome]:
    """Examine in another process, and in a new one after a hang or a crash.

    Args:
        module: that has ``KINDS``.
        name: of the kind.
        seeds: of the inputs.
        deadline: for each, in seconds.

    Yields:
        The outcomes, in the order of the seeds.
    """
    left = list(seeds)
    while left:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            command = [sys.executable, __file__, "--work", module, name, place]
            command.append(str(deadline))
            child = subprocess.Popen(
                [*command, *map(str, left)],
                stdout=subprocess.PIPE,
                stderr=(Path(place) / "stderr").open("wb"),
                text=True,
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
            )
            lines: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_lines, args=(child, lines), daemon=True).start()
            try:
                result, begun = "", False
                wait = START_SECONDS
                while left and not result:
                    try:
                        line = lines.get(timeout=wait)
                    except queue.Empty:
                        result = "hang"
                        break
                    begun = True if line else begun
                    if line is None:
                        result = "crash"
                    elif line.startswith("{"):
                        yield Outcome(**json.loads(line))
                        left.pop(0)
                    # a little more than the deadline in the process itself
                    wait = 2 * deadline
            finally:
                child.kill()
                child.wait()
            if result:
                said = (Path(place) / "stderr").read_text(errors="replace")[-1500:]
                if not begun:
                    raise SystemExit(f"fuzz: {name} does not start:\n{said}")
                bad = Outcome(
                    kind=name, seed=left.pop(0), result=result, what="", detail=said
                )
                yield bad


def _lines(child: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    assert child.stdout is not None
    for line in child.stdout:
        lines.put(line)
    lines.put(None)


def report(outcomes: Sequence[Outcome], out: Any) -> bool:
    """Print the faults and the counts; whether all is well."""
    for each in outcomes:
        if each.result in BAD:
            print(f"{each.kind} --seed {each.seed}: {each.result}", file=out)
            print(f"  {each.what}\n  " + each.detail.replace("\n", "\n  "), file=out)
    counts: dict[str, Counter[str]] = {}  # by kind
    for each in outcomes:
        counts.setdefault(each.kind, Counter())[each.result] += 1
    columns = (*GOOD, *BAD)
    print(f"{'kind':22}" + "".join(f"{c:>10}" for c in columns), file=out)
    for kind, count in counts.items():
        print(
            f"{kind:22}" + "".join(f"{count[c] or '':>10}" for c in columns), file=out
        )
    total = Counter(each.result for each in outcomes)
    print(f"{'all':22}" + "".join(f"{total[c]:>10}" for c in columns), file=out)
    return not any(total[c] for c in BAD)


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--work"]:
        module, name, place, deadline, *seeds = sys.argv[2:]
        folder = Path(place) / "bench"
        work(module, name, list(map(int, seeds)), folder, float(deadline))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", help="all by default")
    parser.add_argument("--inputs", type=int, default=40, help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    parser.add_argument("--keep", type=Path, help="folder for a damaged copy")
    parser.add_argument("--module", default="fuzz_kinds", help="that has KINDS")
    parser.add_argument("--json", action="store_true", help="outcomes, a line each")
    options = parser.parse_args()
    known = importlib.import_module(options.module).KINDS
    if unknown := set(options.kinds) - set(known):
        parser.error(f"no such kinds: {', '.join(sorted(unknown))}")
    seeds = range(options.seed, options.seed + options.inputs)
    names = options.kinds or list(known)
    if options.keep is not None:
        bench = Bench(names[0], known[names[0]], options.keep)
        print(bench.damage(options.seed)[0], options.keep / "case")
        return
    outcomes = []
    for name in names:
        begun = time.monotonic()
        for outcome in in_processes(options.module, name, seeds):
            outcomes.append(outcome)
            if options.json:
                print(json.dumps(asdict(outcome)), flush=True)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    if not report(outcomes, sys.stderr if options.json else sys.stdout):
        sys.exit(1)


if __name__ == "__main__":
    main()
