"""The comparison with torch: both must find the same, whatever the time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_torch.py"


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "small-dit"])
def test_all_contestants_find_the_same(size, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, SCRIPT, "--random", size, "--images", "2"),
            *("--classes", "3", "--repeats", "2", "--batch", "7", "--out", tmp_path),
            *("--strategy", "staged:to_keep=2,1:n_samples=4,8:order=nested"),
            *("--also", "exhaustive:n_samples=8", "--threads", "1"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "bench_torch.json").read_text())
    rows = result["contestants"]
    assert set(rows) == {"packed", "single", "authors", "strong", "packed+"}
    for name in ("single", "authors", "strong"):
        assert rows[name]["agree"] == 2
        assert rows[name]["max_error_difference"] < 1e-5
        assert rows[name]["evaluations_per_image"] == 3 * 4 + 2 * 4
        assert len(rows[name]["all_seconds_per_image"]) == 2
    assert rows["packed+"]["evaluations_per_image"] == 3 * 8
    assert (tmp_path / "bench_torch.md").read_text() in done.stdout


@pytest.mark.slow
def test_several_sizes_take_turns(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, SCRIPT, "--random", "small-dit", "--images", "1"),
            *("--classes", "2", "--repeats", "1", "--threads", "1", "--out", tmp_path),
            *("--contestants", "strong", "packed", "--batch", "1", "2"),
            *("--cells", "4", "2", "--strategy", "exhaustive:n_samples=2"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "bench_torch.json").read_text())["contestants"]
    assert list(rows) == ["strong 1", "strong 2", "packed 4", "packed 2"]
    assert rows["strong 1"]["image_ratio"] == 1
    assert all(row["agree"] == 1 for row in rows.values())
    assert all(row["max_error_difference"] < 1e-5 for row in rows.values())
