"""Damaged files of every kind are read or refused, and nothing else."""

import random
import re
import sys
import textwrap

import pytest
from fuzz import BAD, Bench, in_processes, in_this_process, report
from fuzz_kinds import KINDS
from fuzz_mutations import MUTATIONS

LONG = ("model-index", "configs", "scheduler", "parts-of-a-model")  # models are loaded


def faults(outcomes):
    return [outcome for outcome in outcomes if outcome.result in BAD]


@pytest.mark.parametrize("name", KINDS)
def test_a_few_of_each_kind(tmp_path, name):
    seeds = range(4 if name in LONG else 10)
    outcomes = in_this_process(name, KINDS[name], seeds, tmp_path / "bench")
    assert not faults(outcomes)
    assert len({outcome.what for outcome in outcomes}) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_forty_of_each_kind(name):
    if name == "official" or name in ("weights-bin", "weights-legacy"):
        pytest.importorskip("torch")
    outcomes = list(in_processes("fuzz_kinds", name, range(1000, 1040)))
    assert len(outcomes) == 40
    assert not faults(outcomes)


@pytest.mark.parametrize("form", MUTATIONS)
def test_mutations_change_something_and_depend_on_the_seed_alone(form):
    sound = b'{"a": [1, 2], "b": {"c": "x"}}' if form == "json" else b"a,b\n1,2\n"
    for name, mutation in MUTATIONS[form].items():
        done = [mutation(sound, random.Random(seed)) for seed in range(30)]
        assert done == [mutation(sound, random.Random(seed)) for seed in range(30)]
        assert any(each != sound for each in done), name
        mutation(b"", random.Random(0))
        if form == "json":
            mutation(b"[]", random.Random(0))


PLANTED = """
import os
import time
from fuzz_kinds import Kind
from diffjax.errors import DiffjaxError

def sound(path):
    return path.read_bytes() == b"0123456789" * 5

def planted(fault, **more):
    def read(folder):
        if not sound(folder / "file"):
            fault()
        return (folder / "file").read_bytes()
    write = lambda folder: (folder / "file").write_bytes(b"0123456789" * 5)
    return Kind(write=write, damaged={"file": "bytes"}, read=read, **more)

def unclear():
    raise DiffjaxError("x " * 10**5)

def refused():
    raise DiffjaxError("file is damaged")

KINDS = {
    "fine": planted(lambda: None),
    "refused": planted(refused),
    "traceback": planted(lambda: {}["missing"]),
    "unclear": planted(unclear),
    "silent": planted(lambda: None, checked=True),
    "memory": planted(lambda: bytearray(2**40)),
    "hang": planted(lambda: time.sleep(600)),
    "crash": planted(lambda: os._exit(3)),
}
"""


def test_planted_faults_are_found(tmp_path, monkeypatch, capsys):
    (tmp_path / "planted.py").write_text(textwrap.dedent(PLANTED))
    paths = [str(tmp_path), *filter(None, sys.path)]
    monkeypatch.setenv("PYTHONPATH", ":".join(paths))
    outcomes = []
    for result in ("fine", "refused", *BAD):
        found = list(in_processes("planted", result, range(4), 1.0))
        assert [outcome.seed for outcome in found] == [0, 1, 2, 3]
        assert {o.result for o in found if "unchanged" not in o.what} == {result}
        outcomes += found
        assert report(found, sys.stdout) == (result not in BAD)
    out = capsys.readouterr().out
    assert re.search(r"traceback --seed \d: traceback\n(  .*\n)*  KeyError", out)


def test_what_does_not_start_is_said(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("KINDS = {}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit, match="prompts does not start"):
        list(in_processes("planted", "prompts", range(2)))


def test_a_seed_makes_the_same_damage_again(tmp_path):
    benches = [Bench("prompts", KINDS["prompts"], tmp_path / name) for name in "ab"]
    for seed in range(5):
        damaged = [bench.damage(seed) for bench in benches]
        assert damaged[0] == damaged[1]
        files = [(tmp_path / n / "case" / "prompts.csv").read_bytes() for n in "ab"]
        assert files[0] == files[1]
