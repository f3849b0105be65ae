"""Bars on a terminal, lines elsewhere."""

import io
from dataclasses import dataclass

import pytest
from commands import FakeTerminal
from rich.console import Console

from diffjax.classify.progress import Progress
from diffjax.evaluation import bar
from diffjax.evaluation.bar import Bar, accuracy_text


@pytest.fixture
def clock(monkeypatch):
    """Time stands still until it is told."""
    now = [1000.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: now[0])
    return now


@dataclass(eq=False)
class Begun:
    """An image that is not done."""

    done: int
    remaining: int
    alive: int = 2


def drawn(bar):
    """Have a bar drawn as it is."""
    with bar.hidden():
        pass


def test_a_terminal_gets_a_bar(clock):
    console = FakeTerminal()
    with Bar(console, "cifar10 tiny") as bar:
        now = Progress(watch=bar.show)
        now.begin(2000, 100, 60)
        clock[0] += 70  # to compile, which says nothing of what follows
        now.advance(40)
        clock[0] += 10
        now.advance(60)
        now.count(right=True)
        drawn(bar)
        clock[0] += 1
        now.count(failed=True)
    text = console.file.getvalue()
    assert "cifar10 tiny: 100 of 2,000 were done before" in text
    # 60 evaluations in 10 s; an image takes 10 s, and 1,899 are left
    assert "101/2,000 · 60.4 % ± 9.4 · 6 evals/s · 5:16:30 left" in text
    assert "102/2,000" in text and "1 failed" in text


def test_images_that_are_not_done_count_in_part():
    now = Progress(total=3)
    now.open = {Begun(30, 10), Begun(0, 40)}
    assert now.completed == 0.75 and (now.remaining, now.alive) == (50, 4)
    now.count()
    assert now.completed == 1.75
    pairs = Progress(total=3, images_each=2)
    pairs.open = {Begun(20, 20), Begun(20, 20)}
    assert pairs.completed == 0.5


def test_one_image_shows_its_evaluations(clock):
    console = FakeTerminal()
    with Bar(console, "a-photograph-of-a-cat-with-a-very-long-name.png") as bar:
        bar.stage("compiling")
        drawn(bar)
        now = Progress(watch=bar.show)
        now.open.add(Begun(10, 90, alive=5))
        now.advance(10)
        with bar.hidden():
            console.print("result")
    text = console.file.getvalue()
    assert "compiling" in text and "10/100 · 5 alive" in text
    assert "with-a-very-long-name.png" in text and "a-photo" not in text
    assert "result" in text


def test_elsewhere_there_is_a_line_now_and_then(clock):
    console = Console(file=io.StringIO(), width=40)
    with Bar(console, "cifar10 tiny") as bar:
        now = Progress(watch=bar.show)
        now.begin(7, 0, 0)
        for _ in range(7):
            clock[0] += 12
            now.count(right=True)
    lines = console.file.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        f"cifar10 tiny: {done}/7" for done in (3, 6, 7)
    ]
    assert lines[0].endswith("0:00:48 left") and not lines[-1].endswith("left")


@pytest.mark.parametrize("quiet", [False, True])
def test_a_command_may_have_lines_of_its_own(quiet, clock):
    console = Console(file=io.StringIO())
    with Bar(console, "2 images", quiet=quiet, lines=False) as bar:
        now = Progress(watch=bar.show, total=2)
        for done in (1, 2):
            clock[0] += 100
            now.count()
            bar.line(f"image {done}")
    expected = "" if quiet else "image 1\nimage 2\n"
    assert console.file.getvalue() == expected


def test_quiet_is_quiet():
    for console in (Console(file=io.StringIO()), FakeTerminal()):
        with Bar(console, "cifar10 tiny", quiet=True) as bar:
            now = Progress(watch=bar.show)
            now.begin(2, 1, 1)
            now.count()
        assert console.file.getvalue() == ""


def test_an_accuracy_is_of_twenty_images_at_least(clock):
    console = Console(file=io.StringIO())
    with Bar(console, "cifar10 tiny") as bar:
        now = Progress(watch=bar.show)
        now.begin(100, 18, 9)
        for failed in (False, True, False):
            clock[0] += 100
            now.count(failed=failed, right=not failed)
    _, *lines = console.file.getvalue().splitlines()
    assert ["%" in line for line in lines] == [False, False, True]
    assert "21/100 · 55.0 %" in lines[-1]


def test_the_accuracy_has_its_interval():
    assert accuracy_text(612, 1000) == "61.2 % ± 3.0"
    assert accuracy_text(0, 3) == "0.0 % ± 28.1"


# ---- notebooks


CELL = """
import sys
without = {without}
if without:
    sys.modules["ipywidgets"] = None
from rich.console import Console
from diffjax.classify.progress import Progress
from diffjax.evaluation import bar
if without:
    bar.find_spec = lambda name: None
with bar.Bar(Console(stderr=True), "cifar10 tiny") as shown:
    now = Progress(watch=shown.show)
    now.begin(3, 0, 0)
    for _ in range(3):
        now.count(right=True)
    with shown.hidden():  # and drawn again
        pass
"""


@pytest.mark.parametrize("without", [False, True])
def test_a_notebook_gets_a_bar_or_lines_where_it_lacks_widgets(without):
    """In a kernel of its own, which nbclient runs."""
    pytest.importorskip("ipywidgets")
    import nbclient
    import nbformat

    told = []

    class Client(nbclient.NotebookClient):
        def process_message(self, msg, cell, index):
            told.append(msg["content"].get("data", {}))
            return super().process_message(msg, cell, index)

    cell = nbformat.v4.new_code_cell(CELL.format(without=without))
    Client(nbformat.v4.new_notebook(cells=[cell]), timeout=60).execute()
    widget = "application/vnd.jupyter.widget-view+json"
    assert any(widget in each for each in told) == (not without)
    assert any("3/3" in str(each) for each in told)
    assert not [o for o in cell.outputs if o.get("name") == "stderr"]
