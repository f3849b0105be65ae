"""Commands as a person gives them, and a terminal to look at."""

import io
import json
import re
import shlex
import sys

import click
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


def blocks(page, language):
    """The code of one language in Markdown, but what a comment says cannot be run."""
    code = rf"(<!-- not run.*?-->\n)?^```{language}\n(.*?)^```"
    found = re.findall(code, page, re.MULTILINE | re.DOTALL)
    return [text for excuse, text in found if not excuse]


def commands_of(page):
    """The arguments of all diffjax commands in Markdown, as a shell would give them."""
    launched = r"diffjax|scripts/launch/\w+\.sh"
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            reader = shlex.shlex(line, posix=True, punctuation_chars="&;|>")
            reader.whitespace_split = True
            command = []
            for word in [*reader, ";"]:
                if set(word) <= set("&;|>"):
                    if command[1:] and re.fullmatch(launched, command[0]):
                        yield command[1:]
                    command = []
                elif command or not re.fullmatch(r"\w+=.*|do", word):
                    command.append(word)


def parse(arguments):
    """Let the command line read a command, without running it."""
    context = click.Context(group, info_name="diffjax")
    # what stands for numbers in examples
    filled = [re.sub(r"\$\w+|^K$", "1", word) for word in arguments]
    name, command, rest = group.resolve_command(context, filled)
    command.make_context(name, rest, parent=context)


class FakeTerminal(Console):
    """A console that believes in a terminal and keeps what it is sent."""

    def __init__(self):
        super().__init__(
            file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False
        )


SEVERAL = """
import sys
import diffjax.cli
codes = []
for line in sys.argv[1].split(";"):
    sys.argv[1:] = line.split()
    try:
        diffjax.cli.main()
        codes.append(0)
    except SystemExit as stop:
        codes.append(stop.code or 0)
sys.exit(max(codes))
"""


def several(*commands):
    """Command lines as one process, which exits with the largest of their codes.

    To import what they need is most of what they take.
    """
    return [sys.executable, "-c", SEVERAL, ";".join(commands)]
