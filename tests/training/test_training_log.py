"""The log of a training run: rows in a file, a bar on a terminal, lines elsewhere."""

import io
import re

import pytest
from rich.console import Console

from diffjax.training import log as training_log
from diffjax.training.log import LossLog, read_losses, steps_made


def log_rows(folder, *steps, start=0, terminal=False):
    """What is printed while rows of these steps are written."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100)
    with LossLog(folder, "denoiser", start, 1200, console) as log:
        for step in steps:
            log.advance()
            log.write(step, 0.25, images=64)
    return text.getvalue()


def test_without_a_terminal_the_last_row_alone_is_printed_when_all_goes_fast(tmp_path):
    [line] = log_rows(tmp_path, 400, 800, 1200).splitlines()
    assert re.fullmatch(r"denoiser: 1,200/1,200 · loss 0\.2500 · [\d,]+ images/s", line)


def test_without_a_terminal_slow_rows_tell_the_time_left(tmp_path, monkeypatch):
    monkeypatch.setattr(training_log, "LINE_SECONDS", 0.0)
    first, second = log_rows(tmp_path, 400, 800).splitlines()
    assert re.fullmatch(
        r"denoiser: 400/1,200 · loss .* images/s · \d:\d\d:\d\d left", first
    )
    assert second.startswith("denoiser: 800/1,200")


def test_the_time_left_goes_by_the_last_rows_pace(tmp_path, monkeypatch):
    seconds = iter([0.0, 100.0, 150.0])  # begun; after 400 steps; after 200 more
    monkeypatch.setattr(training_log.time, "perf_counter", lambda: next(seconds))
    first, second = log_rows(tmp_path, 400, 600).splitlines()
    assert first.endswith("0:03:20 left")
    assert second.endswith("0:02:30 left")


@pytest.mark.parametrize("rows", [(), (600,)])
def test_on_a_terminal_there_is_a_bar_and_no_line(tmp_path, rows):
    shown = log_rows(tmp_path, *rows, terminal=True)
    assert "denoiser" in shown and "/1200" in shown
    assert "denoiser:" not in shown


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path):
    log_rows(tmp_path, 400, 800)
    log_rows(tmp_path, 600, start=400)
    assert [row[0] for row in read_losses(tmp_path / "loss.csv")] == [400, 600]
    assert steps_made(tmp_path) == 600
