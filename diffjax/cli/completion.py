"""What a shell offers where somebody presses the Tab key; README says how to get it.

Names come first. Where none fits, the shell's own completion of files or folders goes
on, since most names may also be paths.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names(known: Callable[[], Iterable[str]], *, otherwise: str = "") -> Completion:
    """Offer names that begin as what was typed.

    Args:
        known: A function that lists them.
        otherwise: What the shell offers where none fits: "file", "dir" or nothing.
    """

    def complete(
        context: click.Context, parameter: click.Parameter, typed: str
    ) -> list[CompletionItem]:
        found = [CompletionItem(each) for each in known() if each.startswith(typed)]
        if otherwise and not found:
            return [CompletionItem(typed, type=otherwise)]
        return found

    return complete


files = names(tuple, otherwise="file")
folders = names(tuple, otherwise="dir")


@names
def strategies() -> Iterable[str]:
    """Names alone, not settings: these follow colons, where shells split words."""
    from diffjax.strategies import STRATEGIES

    return STRATEGIES


def _models() -> Iterable[str]:
    from diffjax.checkpoints.catalog import MODELS

    return MODELS


def _presets() -> Iterable[str]:
    from diffjax.data.presets import PRESETS

    return PRESETS


def _datasets() -> Iterable[str]:
    from diffjax.data.presets import PRESETS

    return sorted({preset.dataset for preset in PRESETS.values()})


def _prompts() -> Iterable[str]:
    from diffjax.data.presets import PRESETS

    return sorted({preset.prompts for preset in PRESETS.values()})


baselines = names(lambda: ("resnet",), otherwise="dir")
models = names(_models, otherwise="dir")
presets = names(_presets)
datasets = names(_datasets, otherwise="file")
prompts = names(_prompts, otherwise="file")


def runs(
    context: click.Context, parameter: click.Parameter, typed: str
) -> list[CompletionItem]:
    """Offer folders that hold a run, down to a level below what was typed."""
    found = [CompletionItem(each) for each in sorted(_runs(typed))]
    return found or [CompletionItem(typed, type="dir")]


def _runs(typed: str) -> Iterator[str]:
    from diffjax.runs.header import HEADER

    above, _, begun = typed.rpartition("/")
    above += "/" if "/" in typed else ""
    try:
        for folder in Path(above or ".").iterdir():
            if not folder.name.startswith(begun) or folder.name.startswith("."):
                continue
            for path in (folder, *(folder.iterdir() if folder.is_dir() else ())):
                if (path / HEADER).is_file():
                    yield above + path.relative_to(folder.parent).as_posix()
    except OSError:  # nothing to offer
        return
