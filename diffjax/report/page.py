"""A report as one HTML page: no script, nothing from elsewhere, numbers for each chart.

Sections: the runs that are about the same data, compared; then each run by itself. What
a run does not have is said in words, with the option that would give it.
"""

from collections.abc import Sequence
from pathlib import Path

from diffjax import __version__
from diffjax.report import charts, words
from diffjax.report.compare import Group, Report, RunReport
from diffjax.report.markup import (
    Markup,
    bullets,
    details,
    figure,
    paragraph,
    picture,
    text,
)

STYLE = Path(__file__).parents[1] / "assets" / "report" / "style.css"
TITLE = "Zero-shot classification by diffusion"
# no script and nothing from elsewhere, even if a name should slip through unescaped
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
N_FAILURES = 50


def page(report: Report) -> str:
    """The whole page."""
    make = Markup()
    names = {id(group): make.identifier() for group in report.groups}
    names |= {id(run): make.identifier() for run in report.runs}
    body = "".join(_group(make, group, names) for group in report.groups)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{text(_title(report))}</title>\n"
        f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#content">Skip to the results</a>\n'
        f"<header>\n<h1>{TITLE}</h1>\n{_lead(report)}</header>\n"
        f"{_contents(report, names)}"
        f'<main id="content" tabindex="-1">\n{body}</main>\n'
        f"<footer>{paragraph(words.FOOTER)}"
        f"{paragraph(f'Made by diffjax {__version__}.')}</footer>\n</body>\n</html>\n"
    )


def _title(report: Report) -> str:
    return f"{TITLE}: " + "; ".join(group.title for group in report.groups)


def _lead(report: Report) -> str:
    lines = [words.lead(group) for group in report.groups]
    if len(report.groups) > 1:
        lines.append(
            "The runs are about different data, which are shown one after the other: "
            "accuracies on different data do not compare."
        )
    return "".join(map(paragraph, lines))


def _contents(report: Report, names: dict[int, str]) -> str:
    items = []
    for group in report.groups:
        runs = "".join(
            f'<li><a href="#{names[id(run)]}">{text(run.name)}</a></li>\n'
            for run in group.runs
        )
        items.append(
            f'<li><a href="#{names[id(group)]}">{text(group.title)}</a>\n'
            f"<ul>\n{runs}</ul></li>\n"
        )
    return f'<nav aria-label="Contents">\n<ul>\n{"".join(items)}</ul>\n</nav>\n'


def _group(make: Markup, group: Group, names: dict[int, str]) -> str:
    runs = group.runs
    content = bullets(group.notes, "notes")
    content += make.table(*words.comparison_table(group))
    content += (
        f'<div class="parts">\n{_accuracy(make, runs)}{_cost(make, runs)}</div>\n'
    )
    content += "".join(_run(make, run, names[id(run)]) for run in runs)
    return make.section(2, group.title, content, names[id(group)])


def _accuracy(make: Markup, runs: Sequence[RunReport]) -> str:
    chart = figure(
        charts.svg(charts.accuracy_chart(runs)),
        words.accuracy_finding(runs),
        "How many images are classified correctly, in %. Lines: 95 % intervals "
        "(Wilson).",
    )
    numbers = make.table(*words.accuracy_table(runs))
    return make.section(3, "Accuracy", chart + details("Numbers", numbers))


def _cost(make: Markup, runs: Sequence[RunReport]) -> str:
    chart = figure(
        charts.svg(charts.cost_chart(runs)),
        words.cost_finding(runs),
        "A point a run, with its 95 % interval. "
        + (
            "Curves: what exhaustive runs had reached after fewer samples, spread "
            "evenly over the timesteps."
            if any(run.sample_curve for run in runs)
            else words.NO_SAMPLE_CURVE
        ),
    )
    numbers = make.table(*words.cost_table(runs))
    for run in runs:
        if run.sample_curve:
            numbers += make.table(*words.sample_table(run.name, run.sample_curve))
    return make.section(3, "Accuracy and cost", chart + details("Numbers", numbers))


def _run(make: Markup, run: RunReport, name: str) -> str:
    content = paragraph(words.run_summary(run))
    if run.other_losses:
        content += make.table(*words.losses_table(run))
    content += '<div class="parts">\n'
    content += _confusions(make, run) + _calibration(make, run) + _errors(make, run)
    content += "</div>\n" + _mistakes(make, run)
    if run.failures:
        table = make.table(
            "Images that failed" + _first(N_FAILURES, len(run.failures)),
            ("image", "what went wrong"),
            run.failures[:N_FAILURES],
        )
        content += details(f"Images that failed: {len(run.failures):,}", table)
    settings = make.table(
        f"Settings of {run.name}", ("setting", "value"), run.settings.items()
    )
    content += details("Settings and environment", settings)
    return make.section(3, run.name, content, name)


def _confusions(make: Markup, run: RunReport) -> str:
    confusions = run.confusions
    caption = (
        "Rows: labels; columns: predictions. Numbers: images; the fuller a square, the "
        "larger its part of the row."
    )
    if confusions.n_classes > len(confusions.names):
        caption += (
            f" Shown are the {len(confusions.names)} classes with the most frequent "
            f"mistakes, of {confusions.n_classes:,}."
        )
    chart = figure(
        charts.svg(charts.confusion_chart(confusions)),
        words.confusion_finding(confusions),
        caption,
        wide=True,
    )
    numbers = make.table(*words.confusion_table(confusions))
    if confusions.pairs:
        numbers = make.table(*words.pairs_table(confusions)) + numbers
    return make.section(4, "Confusions", chart + details("Numbers", numbers))


def _errors(make: Markup, run: RunReport) -> str:
    title = "Errors over the timestep"
    if run.error_curve is None:
        return make.section(4, title, paragraph(words.no_error_curve(run)))
    chart = figure(
        charts.svg(charts.error_chart(run.error_curve)),
        words.error_finding(run.error_curve),
        words.error_caption(run),
    )
    numbers = make.table(*words.error_table(run.error_curve))
    return make.section(4, title, chart + details("Numbers", numbers))


def _calibration(make: Markup, run: RunReport) -> str:
    if not run.calibrations:
        return make.section(4, "Calibration", paragraph(words.NO_CALIBRATION))
    caption = (
        "How many predictions of some score are right, with 95 % intervals. On the "
        "dashed line scores would be probabilities. ECE: expected calibration error; "
        "τ: temperature."
    )
    if len(run.calibrations) == 1:
        caption += " `diffjax calibrate` fits a temperature."
    chart = figure(
        charts.svg(charts.calibration_chart(run.calibrations)),
        words.calibration_finding(run.calibrations),
        caption,
    )
    numbers = "".join(
        make.table(*words.calibration_table(calibration))
        for calibration in run.calibrations
    )
    return make.section(4, "Calibration", chart + details("Numbers", numbers))


def _mistakes(make: Markup, run: RunReport) -> str:
    title = "Most confident mistakes"
    if not run.mistakes:
        return make.section(4, title, paragraph("There is no mistake."))
    items = []
    for mistake in run.mistakes:
        if mistake.thumbnail is None:
            image = '<span class="none">no picture</span>'
        else:
            image = picture(mistake.thumbnail, f"Image {mistake.image}")
        terms = "".join(
            f"<dt>{text(term)}</dt><dd>{text(value)}</dd>\n"
            for term, value in words.mistake_terms(mistake)
        )
        items.append(
            f"<li><figure>{image}<figcaption><dl>{terms}</dl>"
            f'<span class="id">{text(mistake.image)}</span></figcaption></figure>'
            "</li>\n"
        )
    content = paragraph(words.mistakes_lead(run))
    return make.section(
        4, title, f'{content}<ol class="mistakes">{"".join(items)}</ol>'
    )


def _first(most: int, n: int) -> str:
    return f" (the first {most} of {n:,})" if n > most else ""
