"""Programs compiled for devices that are not here: names, figures, refusals.

What compilers make of real networks is in ``test_tpu_compiler.py``.
"""

import json
import os

import jax
import pytest
import small
from click.testing import CliRunner

from diffjax.cli.commands import group
from diffjax.errors import DiffjaxError
from diffjax.evaluation import ahead
from diffjax.models import attention
from diffjax.models.attention import Target, chosen, target, traced_for
from diffjax.scoring import compiling
from diffjax.scoring.accelerators import ACCELERATORS, accelerator
from diffjax.scoring.compiling import COLLECTIVE, CompiledTile, Program, topology
from diffjax.scoring.grid import Tile
from diffjax.scoring.placement import block_mesh


def test_programs_are_traced_for_another_machine():
    here = target()
    assert here == Target(jax.default_backend())
    sizes = ("bfloat16", 64, 4096, 4096)
    with traced_for(Target("tpu")):
        assert target().backend == "tpu" and chosen(*sizes) == "pallas"
        with traced_for(Target("cuda", (9, 0))):
            assert chosen(*sizes) == "cudnn"
        # so that memory is planned for it as well
        assert attention.matrix_elements("bfloat16", 5, 64, 4096) == 0
    assert target() == here and chosen(*sizes) == "blocked"
    with pytest.raises(ZeroDivisionError), traced_for(Target("tpu")):
        _ = 1 / 0
    assert target() == here


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v5e", "v5e:2x4"),
        ("v5e:", "v5e:2x4"),
        ("v5e:2y2", "v5e:2x4"),
        ("h999:1x1", "v5p"),
        ("v5e:2x2x1", "along 2 axes"),
        ("v5p:2x2", "along 3 axes"),
        ("v5e:0x4", "v5e:0x4"),
    ],
)
def test_names_that_are_none(name, told):
    with pytest.raises(DiffjaxError, match=told):
        topology(name)


def test_the_published_figures():
    assert {kind.platform for kind in ACCELERATORS.values()} == {"tpu", "cuda"}
    for kind in ACCELERATORS.values():
        assert kind.source.startswith("https://")
        # each has between 100 and 600 FLOPs a byte to do before memory limits it
        assert 100 < kind.flops["bfloat16"] / kind.bandwidth < 600
        assert kind.memory < kind.bandwidth  # read in less than a second
    assert accelerator("v5e").flops["bfloat16"] == 197e12


def compiled(**changes):
    two = block_mesh(jax.local_devices()[:2])
    program = Program(
        seconds=1.0,
        arguments=4 * 10**9,
        outputs=10**6,
        temporaries=10**9 - 10**6,
        bytes_accessed=819e9,
        collectives={},
        kernels={"tpu_custom_call": 12},
        text="",
    )
    fields = {
        "topology": compiling.Topology(
            name="v5e:1x2", accelerator=accelerator("v5e"), mesh=two
        ),
        "tile": Tile(blocks=2, classes=8),
        "dtype": "bfloat16",
        "program": program,
        "flops": 197e12,
    }
    return CompiledTile(**(fields | changes))


def test_the_bound_and_the_largest_tile():
    tile = compiled()
    assert tile.fits and tile.program.memory == 5 * 10**9
    assert tile.largest == 12 * 16  # 16 GB less 4 of weights hold twelve times 1 GB
    assert tile.most_by_flops == pytest.approx(32)  # a tile takes half a second
    assert tile.most_by_bytes == pytest.approx(32)
    assert compiled(flops=2 * 197e12).bound == pytest.approx(16)
    assert compiled(dtype="float32").bound == pytest.approx(32 / 6)
    # no figure for this number type, no bound by it
    assert compiled(dtype="float16").most_by_flops is None
    assert compiled(dtype="float16").bound == pytest.approx(32)


def test_collectives_are_found_in_what_compilers_write():
    text = """
  %all-reduce.3 = f32[1,32,8]{2,1,0:T(8,128)} all-reduce(%fusion.1), channel_id=1
  ROOT %ag = (f32[2]{0}, f32[8]{0}) all-gather-start(%param.1), dimensions={0}
  %ag.1 = f32[8]{0} all-gather-done(%ag)
  %cp = f32[2]{0} collective-permute(%x), source_target_pairs={{0,1}}
  %fusion.2 = f32[2]{0} fusion(%all-reduce.3), calls=%all-gather.clone
"""
    assert COLLECTIVE.findall(text) == [
        "all-reduce",
        "all-gather",
        "collective-permute",
    ]


def test_planned_cells_are_those_of_the_other_machine():
    network = small.text_denoiser()
    tile = compiled()
    assert compiling.planned_cells(tile.topology, network, (8, 8, 4)) == 2 * 128


@pytest.fixture
def elsewhere(monkeypatch):
    """Two devices that are not here, and what a compiler would say of a tile."""
    where = compiled().topology
    asked = []

    def compile_tile(topology, denoiser, schedule, condition, shape, tile, *, sharded):
        assert not sharded
        asked.append((condition, shape))
        if tile.blocks > 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 17 of 16 GB")
        return compiled(tile=tile, dtype=str(denoiser.dtype))

    monkeypatch.setattr(ahead, "topology", lambda name: where)
    monkeypatch.setattr(ahead, "compile_tile", compile_tile)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return asked


def test_the_command_compiles_every_combination(elsewhere):
    asked = ["bench", "--random", "tiny", "--compile-for", "v5e:1x2", "--quiet"]
    asked += ["--blocks", "2", "--blocks", "6", "--dtype", "auto", "--dtype", "float32"]
    result = CliRunner().invoke(group, [*asked, "--json"])
    report = json.loads(result.stdout)
    rows = report["tiles"]
    assert [(row["dtype"], row["blocks"], row["fits"]) for row in rows] == [
        ("bfloat16", 2, True),
        ("bfloat16", 6, False),
        ("float32", 2, True),
        ("float32", 6, False),
    ]
    assert rows[0]["bound_by_flops"] == pytest.approx(32)
    assert rows[1]["seconds"] is None
    assert rows[0]["planned"] == 256
    # the conditions are in the denoiser's number type, as they are when it classifies
    assert [shape for _, shape in elsewhere] == [(16, 16, 4)] * 4
    states = [condition.states for condition, _ in elsewhere]
    assert {each.shape for each in states} == {(77, 64)}
    assert [str(states[i].dtype) for i in (0, 2)] == ["bfloat16", "float32"]
    result = CliRunner().invoke(group, asked)
    assert result.exit_code == 0
    assert "4.00 + 1.00 of 16 GB a device" in result.stdout
    assert "the 16 GB of a device do not hold it" in result.stdout
    assert "tpu/docs/v5e" in result.stdout


def test_the_command_refuses_what_cannot_be_split(elsewhere):
    asked = ["bench", "--random", "tiny", "--compile-for", "v5e:1x2", "--blocks", "3"]
    result = CliRunner().invoke(group, asked)
    assert result.exit_code == 2
    assert "3 blocks cannot be split among 2 devices" in result.stderr
