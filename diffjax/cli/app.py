"""``diffjax app``."""

import time
from collections.abc import Container
from typing import Any

import click
from click.core import ParameterSource

from diffjax.choices import STRATEGY
from diffjax.cli.completion import models as complete_models
from diffjax.cli.group import group, loading, start
from diffjax.cli.options import (
    deciding_options,
    device_options,
    image_options,
    number,
    option,
    part_options,
    quiet_option,
    section,
    strategies,
    switch,
)

NEVER = 3600.0  # seconds between looks whether to end, which Ctrl-C does


@group.command(
    usual=(
        *("--model", "--strategy", "--loss", "--temperature", "--max-pixels"),
        *("--max-labels", "--host", "--port", "--no-browser"),
    ),
    listings=strategies(STRATEGY),
)
@deciding_options
@image_options
@section(
    "model",
    option(
        "--model",
        "NAME",
        "A model that the page offers, as other commands take it. May be repeated; all "
        "are loaded at once.",
        name="models",
        multiple=True,
        default=("tiny", "tiny-dit"),
        show_default="tiny and tiny-dit",
        shell_complete=complete_models,
    ),
)
@part_options
@device_options
@section(
    "output",
    number("--max-labels", "Most labels that the page takes.", least=2, default=1000),
    option(
        "--host",
        "ADDRESS",
        "Address to serve at; 0.0.0.0 lets other machines in.",
        default="127.0.0.1",
    ),
    number(
        "--port",
        "Port to serve at.",
        most=65535,
        show_default="the first that is free from 7860 on",
    ),
    switch("--no-browser", "Do not open the page in a browser."),
    quiet_option,
)
@click.pass_context
def app(
    context: click.Context,
    /,
    models: tuple[str, ...],
    strategy: str | None,
    max_pixels: int | None,
    max_labels: int,
    host: str,
    port: int | None,
    no_browser: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Serve a page on which to watch images being classified.

    A visitor drops an image, types labels, and sees the race of the classes; the next
    one waits for a turn. The page offers the models that --model names, and fetches
    nothing from elsewhere.

    \b
    diffjax app
    diffjax app --model sd-2-base --model tiny --port 8000 --no-browser
    """
    console, _ = start()
    with loading(console, quiet, f"loading {', '.join(models)}"):
        from diffjax.cli.desk import Desk
        from diffjax.cli.page import build, check_address, gradio, serve

        gradio()  # what would stop it is told before models are loaded
        check_address(host, port)
        words = given(context, options | {"max_pixels": max_pixels})
        desk = Desk(
            models,
            options,
            words,
            strategy=strategy or STRATEGY,
            max_pixels=max_pixels,
            max_labels=max_labels,
        )
        for model in models:  # a mistake in a name is told now
            desk.classifier(model, desk.strategies[0])
        blocks = build(desk)
        address = serve(blocks, host, port, browser=not no_browser)
    click.echo(f"diffjax app: {address} (Ctrl-C ends it)")
    while True:
        time.sleep(NEVER)


def given(context: click.Context, names: Container[str]) -> dict[str, list[str]]:
    """What of some options the command line says, as words of it."""
    from diffjax.strategies import shortlist_to_text
    from diffjax.strategies.shortlist import Shortlist

    found: dict[str, list[str]] = {}
    for option_ in context.command.params:
        name = option_.name
        if name not in names or not isinstance(option_, click.Option):
            continue
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(value, Shortlist):
            value = shortlist_to_text(value)
        if option_.is_flag:
            found[name] = [option_.opts[0]]
        else:
            values = value if option_.multiple else [value]
            found[name] = [w for v in values for w in (option_.opts[0], str(v))]
    return found
