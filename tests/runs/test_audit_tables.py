"""What filters take away, and tables of images that go on."""

from itertools import combinations

import numpy as np
import pytest

from diffjax.choices import FILTERS
from diffjax.errors import DiffjaxError
from diffjax.files import read_json
from diffjax.runs.audit import COLUMNS, Limits, counted, open_audit
from diffjax.runs.metrics import wilson

HEADER = {"data": {"name": "pets"}, "models": {"aesthetic": "1f", "unsafe": "2e"}}


def rows(n=200):
    """Images with their figures, some at the limits to the last digit."""
    rng = np.random.default_rng(2)
    return [
        {
            **{"index": k, "id": f"{k}.png", "label": "=cat", "error": None},
            **{side: int(rng.integers(400, 700)) for side in ("width", "height")},
            "aesthetic": float(rng.choice([4.5, 4.4999, rng.normal(4.5)])),
            "unsafe": float(rng.choice([0.1, 0.0999, rng.beta(1, 9)])),
        }
        for k in range(n)
    ]


def test_filters_alone_and_together():
    table = rows()
    size = np.array([min(r["width"], r["height"]) >= 512 for r in table])
    beautiful = np.array([r["aesthetic"] >= 4.5 for r in table])
    safe = np.array([r["unsafe"] < 0.1 for r in table])
    left = dict(zip(FILTERS, (size, beautiful, safe), strict=False))
    result = counted(table, FILTERS, Limits())
    assert list(result["filters"]) == [
        *FILTERS,
        "aesthetic+unsafe",
        "size+aesthetic+unsafe",
    ]
    for names, found in result["filters"].items():
        gone = int((~np.all([left[name] for name in names.split("+")], axis=0)).sum())
        assert 0 < gone < 200 and found["filtered_out"] == gone
        assert found["share"] == gone / 200
        assert found["interval"] == list(wilson(gone, 200))
    failed = [{**row, "error": "damaged"} for row in table[:5]]
    again = counted(failed + table, FILTERS, Limits())
    assert (again["images"], again["failed_images"]) == (200, 5)
    assert again["filters"] == result["filters"]
    for names in (*((name,) for name in FILTERS), *combinations(FILTERS, 2)):
        some = counted(table, names, Limits())["filters"]
        assert some["+".join(names)]["filtered_out"] == int(
            (~np.all([left[name] for name in names], axis=0)).sum()
        )
    all_left = counted(table, FILTERS, Limits(size=1, aesthetic=-9.0, unsafe=2.0))
    assert all(not each["filtered_out"] for each in all_left["filters"].values())
    with pytest.raises(DiffjaxError, match=r"None of the 5 images.*damaged"):
        counted(failed, FILTERS, Limits())


def test_a_table_goes_on_as_if_it_had_been_whole(tmp_path):
    table = rows(20)
    table[3] |= dict.fromkeys(("width", "height", "aesthetic", "unsafe"))
    table[3]["error"] = "3.png is damaged,\nand\tmore"
    whole = open_audit(tmp_path / "whole", HEADER)
    for row in table:
        whole.add(row)
    whole.flush()
    for part in (slice(0, 8), slice(8, 20)):
        audit = open_audit(tmp_path / "parts", HEADER)
        assert audit.saved == part.start == len(audit.rows)
        for row in table[part]:
            audit.add(row)
        audit.flush()
    files = [tmp_path / name / "images.csv" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_text().splitlines()[0] == ",".join(COLUMNS)
    assert "'=cat" in files[0].read_text()
    again = open_audit(tmp_path / "parts", HEADER)
    assert again.rows == whole.rows
    limits = Limits(aesthetic=4.0)
    found = [each.finish(range(20), FILTERS, limits) for each in (whole, again)]
    assert found[0] == found[1] == read_json(tmp_path / "parts" / "audit.json")
    # other limits are counted anew
    stricter = again.finish(range(20), FILTERS, Limits(aesthetic=9.0))["result"]
    assert stricter["filters"]["aesthetic"]["filtered_out"] == 19


def test_what_is_no_such_table_is_refused(tmp_path):
    audit = open_audit(tmp_path / "a", HEADER)
    audit.add(rows(1)[0])
    audit.flush()
    for header, message in (
        ({**HEADER, "models": {}}, "other models: there .*1f.*--out"),
        ({**HEADER, "data": {"name": "x"}}, "other data"),
    ):
        with pytest.raises(DiffjaxError, match=message):
            open_audit(tmp_path / "a", header)
    table = tmp_path / "a" / "images.csv"
    sound = table.read_text()
    for found, put, message in (
        ("0,0.png", "x,0.png", "images.csv, line 2: a number is missing.*Delete"),
        ("0,0.png", "-1,0.png", "line 2: its index"),
        ("unsafe", "safe", "unsafe"),
    ):
        table.write_text(sound.replace(found, put))
        with pytest.raises(DiffjaxError, match=message):
            open_audit(tmp_path / "a", HEADER)
    last = sound.splitlines()[-1].split(",")
    for cells, message in (
        ([*last[:-2], "nan", ""], "not finite"),
        ([*last[:-2], "", ""], "missing or malformed"),
    ):
        table.write_text(sound.splitlines()[0] + "\n" + ",".join(cells) + "\n")
        with pytest.raises(DiffjaxError, match=message):
            open_audit(tmp_path / "a", HEADER)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text("{}")
    with pytest.raises(DiffjaxError, match="something other than an audit"):
        open_audit(tmp_path / "b", HEADER)
