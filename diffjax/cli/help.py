"""What ``--help`` shows: the usual options; ``--help-all``: all of them, in groups."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import click

MANY = 12  # options, of which a help need not show all at once
SECTIONS = {  # groups of options, in the order of their help
    "data": "Data",
    "prompts": "Prompts and classes",
    "deciding": "Deciding",
    "drawing": "Drawing",
    "model": "Model",
    "device": "Devices",
    "output": "Output",
}
BESIDE = 16  # letters of a term that has its text beside it, not below
NARROW = 70  # letters a line

Rows = Sequence[tuple[str, str]]


class Option(click.Option):
    """An option that belongs to a group of the help.

    Attributes:
        section: A name of ``SECTIONS``, or "" where a command has few options.
    """

    def __init__(self, *args: Any, section: str = "", **settings: Any) -> None:
        """As click has it."""
        super().__init__(*args, **settings)
        self.section = section

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What stands in brackets: no ranges, which are told to whom they concern."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


class Command(click.Command):
    """A command whose help begins with what is usual.

    Attributes:
        usual: The flags that ``--help`` shows of a command with many options.
        listings: Terms with their texts, shown after the options, by their headings.
    """

    def __init__(
        self,
        *args: Any,
        usual: Sequence[str] = (),
        listings: Mapping[str, Rows] | None = None,
        **settings: Any,
    ) -> None:
        """As click has it."""
        super().__init__(*args, **settings)
        self.usual, self.listings = tuple(usual), dict(listings or {})
        options = [each for each in self.params if isinstance(each, click.Option)]
        if len(options) > MANY:
            self.params.append(_help_all(len(options)))

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the options: few, the usual ones, or all of them in groups."""
        everything = ctx.meta.get(HELP_ALL, False)
        rows: dict[str, list[tuple[str, str]]] = {}
        last = []  # what asks for help
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is None or isinstance(parameter, click.Argument):
                continue
            if not isinstance(parameter, Option):
                last.append(row)
            elif HELP_ALL in parameter.opts:
                last.insert(0, row)
            elif everything:
                rows.setdefault(SECTIONS[parameter.section], []).append(row)
            elif not self.usual:
                rows.setdefault("Options", []).append(row)
            elif set(self.usual) & set(parameter.opts):
                rows.setdefault("Usual options", []).append(row)
        if everything:
            rows = {title: rows[title] for title in SECTIONS.values() if title in rows}
        rows = rows or {"Options": []}
        rows[list(rows)[-1]] += last
        column = 22 if formatter.width < NARROW else 30
        for heading, lines in rows.items():
            with formatter.section(heading):
                formatter.write_dl(lines, col_max=column)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the listings and the epilog."""
        for heading, rows in self.listings.items():
            beside = max(len(term) for term, _ in rows) <= BESIDE
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=BESIDE if beside else 2)
        if self.epilog:
            formatter.write_paragraph()
            formatter.write_text(inspect.cleandoc(self.epilog))


HELP_ALL = "--help-all"


def _help_all(n: int) -> Option:
    """The option that shows all of a command's n options."""

    def show(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
        if asked and not ctx.resilient_parsing:
            ctx.meta[HELP_ALL] = True
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()

    return Option(
        [HELP_ALL],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help=f"Show all {n} options, in groups, and exit.",
    )
