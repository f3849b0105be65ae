"""Bars on a terminal, lines elsewhere."""

import dataclasses
import io

import pytest
from commands import FakeTerminal
from rich.console import Console

from diffjax.cli import progress
from diffjax.cli.progress import BatchProgress, Clock, EvaluationProgress, accuracy_text
from diffjax.evaluation.runner import Tally


@pytest.fixture
def clock(monkeypatch):
    """Time stands still until it is told."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_terminal_gets_a_bar(clock):
    console = FakeTerminal()
    with EvaluationProgress(console, "cifar10 tiny") as bar:
        task = bar._bar.tasks[0]
        tally = Tally(total=2000, done=100, correct=60)
        bar.update(tally)
        assert (task.completed, task.total) == (100, 2000)
        clock[0] += 10
        tally = dataclasses.replace(tally, done=101, correct=61, evaluations=50)
        bar.update(tally)
        bar.tile(None, 60)
        state = task.fields["state"]
        bar.update(dataclasses.replace(tally, done=102, failed=1, evaluations=50))
        bar._bar.refresh()
    # 60 evaluations in 10 s; an image takes 10 s, and 1,899 are left
    assert state == "101/2,000 · 60.4 % ± 9.4 · 6 evals/s · 5:16:30 left"
    text = console.file.getvalue()
    assert "cifar10 tiny: 100 of 2,000 were done before" in text
    assert "102/2,000" in text and "1 failed" in text


def test_elsewhere_there_is_a_line_now_and_then(clock):
    console = Console(file=io.StringIO(), width=40)
    with EvaluationProgress(console, "cifar10 tiny") as bar:
        for done in range(8):
            bar.update(Tally(total=7, done=done, correct=done, evaluations=done))
            clock[0] += 12
    lines = console.file.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        f"cifar10 tiny: {done}/7" for done in (3, 6, 7)
    ]
    assert lines[0].endswith("left") and not lines[-1].endswith("left")


def test_quiet_is_quiet():
    for console in (Console(file=io.StringIO()), FakeTerminal()):
        with EvaluationProgress(console, "cifar10 tiny", quiet=True) as bar:
            bar.update(Tally(total=2, done=1))
            bar.update(Tally(total=2, done=2))
        assert console.file.getvalue() == ""


def test_the_clock_counts_this_process_alone(clock):
    timer = Clock()
    before = Tally(total=10, done=6)
    timer.begin(before)
    clock[0] += 4
    assert timer.texts(before, 0) == []  # nothing is known yet
    done = Tally(total=10, done=8, evaluations=100)
    assert timer.texts(done, 120) == ["30 evals/s", "0:00:04 left"]
    assert timer.texts(dataclasses.replace(done, done=10), 100) == ["25 evals/s"]


def test_the_accuracy_has_its_interval():
    assert accuracy_text(612, 1000) == "61.2 % ± 3.0"
    assert accuracy_text(0, 3) == "0.0 % ± 28.1"


def test_a_terminal_gets_a_bar_that_counts_all_images():
    console = FakeTerminal()
    with BatchProgress(console, 3) as bar:
        task = bar._bar.tasks[0]
        bar.begin("a/b/cat.png")
        bar.stage("compiling")
        assert task.fields["count"] == "compiling"
        bar.update(10, 90, 5)
        assert (task.completed, task.total) == (10, 300)
        bar.update(80, 0, 2)  # fewer than expected
        bar.finish("cat")
        bar.begin("a/b/dog.png")
        bar.update(20, 80, 5)  # the last image will need as many as the first did
        assert (task.completed, task.total) == (100, 80 + 100 + 80)
        assert "2/3 dog.png" in task.description
        with bar.hidden():
            console.print("result")
    text = console.file.getvalue()
    assert "2/3 dog.png" in text and "100/260 · 5 alive" in text
    assert "result" in text


@pytest.mark.parametrize("quiet", [False, True])
def test_elsewhere_there_is_a_line_an_image_or_nothing(quiet):
    console = Console(file=io.StringIO())
    with BatchProgress(console, 1, quiet=quiet) as bar:
        bar.begin("cat.png")
        bar.update(10, 0, 1)
        bar.finish("cat, 10 evaluations")
    expected = "" if quiet else "1/1 cat.png: cat, 10 evaluations\n"
    assert console.file.getvalue() == expected
