"""The script of the saved runs: its commands exist, its packing loses no row."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from make_results import pack, packed

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "make_results.py"


def test_every_listed_command_is_one_that_diffjax_takes():
    from diffjax.cli.commands import group

    listed = subprocess.run(
        [sys.executable, str(SCRIPT), "--list", "--baseline", "net"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.splitlines()
    assert len(listed) > 10
    for line in listed:
        program, command, *arguments = line.split()
        assert program == "diffjax"
        options = {o for p in group.commands[command].params for o in p.opts}
        asked = {each for each in arguments if each.startswith("--")}
        assert asked <= options, line


def test_an_unknown_result_is_refused():
    found = subprocess.run(
        [sys.executable, str(SCRIPT), "nonsense"], capture_output=True, text=True
    )
    assert found.returncode == 2
    assert "no result 'nonsense'; there are cifar10" in found.stderr


def test_packing_keeps_every_row_and_drops_pictures(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    for k in range(3):
        rows = {"index": [2 * k, 2 * k + 1], "thumbnail": [b"jpeg", None]}
        schema = pa.schema({"index": pa.int64(), "thumbnail": pa.binary()})
        pq.write_table(pa.table(rows, schema=schema), parts / f"{k}.parquet")
    assert not packed(tmp_path)
    pack(tmp_path)
    assert packed(tmp_path)  # and is not run again
    [file] = parts.iterdir()
    table = pq.read_table(file, page_checksum_verification=True)
    assert table["index"].to_pylist() == list(range(6))
    assert table["thumbnail"].null_count == 6
    assert table.schema.field("thumbnail").type == pa.binary()


def test_robustness_needs_checkpoints_to_compare_with():
    found = subprocess.run(
        [sys.executable, str(SCRIPT), "robustness"], capture_output=True, text=True
    )
    assert found.returncode == 2
    assert "robustness needs a --baseline" in found.stderr
    listed = subprocess.run(
        [sys.executable, str(SCRIPT), "--list"], capture_output=True, text=True
    )
    assert listed.returncode == 0
    assert "winoground" in listed.stdout and "robustness" not in listed.stdout
