"""Commands as a person gives them, and a terminal to look at."""

import io
import json

from click.testing import CliRunner
from rich.console import Console

from diffjax.cli.commands import group

# Three classes in nearly every test: other shapes would be compiled anew.
LABELS = "cat,dog,a"  # short enough for the small tokenizer
STRATEGY = "staged:to_keep=2,1:n_samples=2,4:order=nested"


def invoke(*args, **settings):
    return CliRunner().invoke(group, [str(arg) for arg in args], **settings)


def classify(folder, *args, images=None, labels=LABELS, model="sd"):
    images = [folder / "noise.png"] if images is None else images
    chosen = ["--labels", labels] if labels is not None else []
    return invoke(
        *("classify", *images, *chosen, "--strategy", STRATEGY),
        # two cells a tile: all rounds have tiles of one shape, compiled once
        *("--cells", "2", "--model", folder / model, *args),
    )


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def assert_refused(result, *parts):
    """Exit code 2 and a message, no traceback."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert "error: " in result.stderr
    for part in parts:
        assert str(part) in result.stderr, (part, result.stderr)


def assert_only_refused(result, *parts):
    """Exit code 2 and one message; no traceback, nothing on standard output."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output and result.stdout == ""
    (message,) = result.stderr.split("error: ")[1:]
    for part in parts:
        assert str(part) in message, (part, message)


class FakeTerminal(Console):
    """A console that believes in a terminal and keeps what it is sent."""

    def __init__(self):
        super().__init__(
            file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False
        )
