"""Reports on runs of captions and images, and on images made worse."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from saved_runs import write_run

from diffjax.cli.commands import group
from diffjax.report import charts, tables, words
from diffjax.report.compare import read_report
from diffjax.runs.folder import open_rows, write_summary
from diffjax.runs.metrics import wilson
from diffjax.runs.winoground import SCORES, TASK, cells, columns, winoground_scores

NAME = "<b>scenes</b>"
TAGS = ("Object", "Relation")


def write_captions(path, errors, *, examples="1" * 8, complete=True, failed=0):
    """A run as `diffjax winoground` writes it; errors [n, 3, 2], the last row empty."""
    header = {
        "format": 1,
        "experiment": {"task": TASK, "loss": "l2"},
        "model": {"name": path.name, "fingerprint": "0" * 16},
        "data": {"name": NAME, "examples": examples},
        "class_names": [],
        "classes": [],
    }
    scores = winoground_scores(errors[:, :2], errors[:, 2])
    with open_rows(path, header, None, columns()) as run:
        for i, table in enumerate(errors):
            tags = dict.fromkeys(("tag", "secondary_tag", "collapsed_tag"), TAGS[i % 2])
            row = {"index": i, "id": str(i), **tags, "evaluations": 6, "seconds": 1.0}
            row |= dict(zip(cells(), table.ravel().tolist(), strict=True))
            run.add(row | {name: bool(each[i]) for name, each in scores.items()})
        for i in range(len(errors), len(errors) + failed):
            run.add({"index": i, "id": str(i), "error": "no image"})
    if complete:
        write_summary(path, {"status": "complete"})


def captions(n_right, n=12):
    """Errors whose text score is right of the first examples."""
    errors = np.ones((n, 3, 2))
    errors[:n_right, 0, 0] = errors[:n_right, 1, 1] = 0.5
    return errors


def invoke(*args):
    return CliRunner().invoke(group, ["report", *map(str, args)])


def test_a_run_of_captions_has_its_page(tmp_path):
    write_captions(tmp_path / "good", captions(9))
    write_captions(tmp_path / "poor", captions(2))
    result = invoke(
        *(tmp_path / "good", tmp_path / "poor", "--html", tmp_path / "page.html")
    )
    assert result.exit_code == 0, result.output
    assert "75.0" in result.stdout and "by l2" in result.stdout
    said = "Of 2 runs, good (75.0\N{NO-BREAK SPACE}%) has the best text score"
    assert said in " ".join(result.stdout.split(" ")).replace("\n", "")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert said in page and NAME not in page and "&lt;b&gt;scenes" in page
    low, high = (100 * end for end in wilson(9, 12))
    assert f"({low:.1f}–{high:.1f})" in page
    assert all(f">{tag}<" in page for tag in (*TAGS, "all"))
    rows = json.loads(invoke(tmp_path / "good", "--json").stdout)
    assert rows[0]["text"] == 0.75 and rows[0]["text_low"] == wilson(9, 12)[0]


def test_captions_of_other_examples_are_another_group(tmp_path):
    write_captions(tmp_path / "a", captions(9))
    write_captions(tmp_path / "b", captions(8), examples="2" * 8)
    groups = read_report([tmp_path / "a", tmp_path / "b"]).captions
    assert [group.standing for group in groups] == [None, None]
    assert "chance finds 25.0" in words.caption_headline(groups[0])


def test_unfinished_and_failed_captions_are_told(tmp_path):
    write_captions(tmp_path / "going", captions(3), complete=False)
    write_captions(tmp_path / "failed", captions(0, n=0), failed=2)
    result = invoke(tmp_path / "going", tmp_path / "failed")
    assert result.exit_code == 2 and "is in progress" in result.stderr
    told = result.stdout.replace("\n", "")
    assert "has no result of any example. The first: no image" in told
    alone = invoke(tmp_path / "failed")
    assert alone.exit_code == 2 and "has no result of any example" in alone.stderr


def test_bars_and_marks_of_captions(tmp_path):
    write_captions(tmp_path / "a", captions(9))
    ((run,),) = [group.runs for group in read_report([tmp_path / "a"]).captions]
    (axes,) = charts.caption_chart([run]).axes
    widths = [p.get_width() for c in axes.containers for p in getattr(c, "patches", ())]
    assert widths == [run.rate(score).value for score in SCORES]
    _, header, rows = tables.tags(run)
    assert len(header) == len(rows[0]) == 2 + len(SCORES)
    assert [row[:2] for row in rows[:2]] == [("all", "12"), ("Object", "6")]


@pytest.fixture
def shifted(tmp_path):
    def write(model, corrupt, n_right, n=40):
        right = np.arange(n) < n_right
        errors = np.stack([~right, right], axis=1)[:, :, None].astype(np.float32)
        path = tmp_path / f"{model}-{corrupt}".replace(":", "-")
        header = {
            "experiment": {"corrupt": corrupt},
            "model": {"name": model},
            "data": {"fingerprint": f"{len(str(corrupt)):016x}"},
        }
        write_run(path, errors, np.zeros(n, int), save_errors=False, header=header)
        return path

    return write


def test_runs_on_shifted_images_are_compared_with_clean_ones(shifted, tmp_path):
    paths = [shifted("a", None, 30), shifted("a", "blur:2", 20)]
    paths += [shifted("a", "noise:1", 10), shifted("b", None, 36)]
    (found,) = read_report(paths).shifts  # of b there is no shifted run
    assert [(p.model, p.shift) for p in found.points] == [
        *(("a", "all"), ("a", "noise"), ("a", "blur"))
    ]
    said = words.shift_headline(found)
    assert "75.0\N{NO-BREAK SPACE}% of the clean" in said
    assert "37.5\N{NO-BREAK SPACE}% of those made worse" in said
    (axes,) = charts.shift_chart(found.points).axes
    widths = [p.get_width() for c in axes.containers for p in getattr(c, "patches", ())]
    assert widths == [0.75, 0.375, 0.25, 0.5]
    result = invoke(*paths, "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert "as it is and made worse" in result.stdout
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Bar chart of accuracy on clean images" in page and said in page


def test_a_shifted_run_alone_says_what_is_missing(shifted):
    result = invoke(shifted("a", "blur:2", 20))
    assert result.exit_code == 0, result.output
    assert "has no run with the clean images" in result.stdout.replace("\n", " ")
    assert read_report([shifted("b", None, 20)]).shifts == ()
