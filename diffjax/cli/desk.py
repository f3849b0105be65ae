"""What `diffjax app` answers its visitors, without the page that asks for it.

for shown in desk.answer(asked): ...          # the race after every tile, in HTML
"""

import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from diffjax.choices import STRATEGY
from diffjax.classify.settings import Settings, settings_from
from diffjax.cli.commands import group
from diffjax.cli.group import meant, notes
from diffjax.cli.telling import tellings
from diffjax.data.images import load_image
from diffjax.data.presets import PRESETS, prompts_file
from diffjax.data.prompts import (
    DEFAULT_TEMPLATE,
    Prompts,
    check_labels,
    join_labels,
    split_labels,
)
from diffjax.errors import DiffjaxError, unknown
from diffjax.report.lanes import evidence_html, race_html, table_html, words_html

if TYPE_CHECKING:
    from diffjax.classify.candidates import Candidates
    from diffjax.classify.classifier import DiffusionClassifier

STRATEGIES = (
    STRATEGY,
    "staged:to_keep=5,1:n_samples=25,250:order=nested",
    "exhaustive:n_samples=50",
)
BEAT = 0.5  # seconds, after which one who has left is noticed
PACE = 0.12  # seconds that a look stays on the page, which eyes need
MAX_LABELS = 1000
# bytes of one word of a command, which Linux takes; with the quotes of a shell
MAX_WORD = 100_000
N_EVIDENCE = 100  # timesteps of the maps, as `diffjax explain` has them


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a visitor asks.

    Attributes:
        image: The path of the image's file; None if there is none.
        name: What the command line calls the image.
        labels: Labels, with commas or lines between them; "" for a model's own.
        model: The name of the model.
        template: The prompt, with {} for the label.
        strategy: The strategy.
        evidence: Whether to draw where the evidence lies.
    """

    image: str | None
    name: str = ""
    labels: str = ""
    model: str = "tiny"
    template: str = DEFAULT_TEMPLATE
    strategy: str = STRATEGY
    evidence: bool = True


class Shown(NamedTuple):
    """What the page shows: three pieces of HTML, and command lines as a text."""

    race: str = ""
    table: str = ""
    evidence: str = ""
    commands: str = ""


Tell = Callable[[tuple[Shown, int]], None]


class Desk:
    """Answers visitors; models stay loaded. One visitor at a time is to be let in."""

    def __init__(
        self,
        models: Sequence[str],
        options: Mapping[str, Any],
        words: Mapping[str, Sequence[str]],
        *,
        strategy: str = STRATEGY,
        max_pixels: int | None = None,
        max_labels: int = MAX_LABELS,
        pace: float = PACE,
    ) -> None:
        """Load nothing yet.

        Args:
            models: The models that may be asked for; no other is looked for.
            options: What else ``DiffusionClassifier.from_pretrained`` is to be told.
            words: What of it a command line says, by the name of the option.
            strategy: The strategy that is offered first, before ``STRATEGIES``.
            max_pixels: As for ``load_image``.
            max_labels: The most labels that are taken.
            pace: Seconds that each look of a race is shown at least.
        """
        self.models = tuple(models)
        self.strategies = tuple(dict.fromkeys((strategy, *STRATEGIES)))
        self._options, self._words = dict(options), dict(words)
        self._max_pixels, self._max_labels = max_pixels, max_labels
        self._pace = pace
        self._one = threading.Lock()  # that computes; who has left ends his tile first
        self._loaded: dict[str, Any] = {}
        self._flops: dict[str, float] = {}

    def answer(self, asked: Asked) -> Iterator[Shown]:
        """Answer a visitor; what is wrong with the question is part of the answer.

        It says something at least every ``BEAT`` seconds. Closing the iterator ends
        the computation with the tile that is being computed.
        """
        shown, latest, until = Shown(), 0, 0.0
        try:
            for told in tellings(partial(self._work, asked), BEAT):
                if told is not None:
                    shown, look = told
                    if look > latest:
                        time.sleep(max(0.0, until - time.monotonic()))
                        latest, until = look, time.monotonic() + self._pace
                yield shown
        except Exception as error:
            line = meant(error)
            if line is None:
                raise
            yield Shown(race=words_html(_seen([line], asked), problem=True))

    def _work(self, asked: Asked, tell: Tell) -> None:
        """Go the way of `diffjax classify`, and of `diffjax explain` after it."""
        said: list[str] = []
        with self._one, notes(said.append):
            labels = self._labels(asked.labels)
            if asked.image is None:
                raise DiffjaxError("Drop an image into the field, or take an example.")
            image = load_image(asked.image, max_pixels=self._max_pixels)
            tell((Shown(race=words_html([f"{asked.model} is made ready …"])), 0))

            from diffjax.classify.explanation import explain
            from diffjax.classify.race import Moment, race

            classifier = self.classifier(asked.model, asked.strategy)
            text = classifier.model.kind == "text"
            if text and labels is None:
                raise DiffjaxError(f"{asked.model} needs labels to choose from.")
            template = asked.template if text else DEFAULT_TEMPLATE
            candidates = classifier.candidates(labels, template)
            flops = self._flops_each(classifier, candidates)
            moments: list[Moment] = []

            def draw(moment: Moment | None) -> str:
                return race_html(moment, flops, asked.model) + words_html(
                    _seen(said, asked)
                )

            def watch(moment: Moment) -> None:
                moments[:] = [moment]
                tell((Shown(race=draw(moment)), moment.looks))

            tell((Shown(race=draw(None)), 0))
            record = race(classifier, image, candidates, watch)
            ranked = [record.labels[c] for c in record.decision.ranking]
            pair = ranked[:2] if asked.evidence else []
            shown = Shown(
                race=draw(moments[0]),
                table=table_html(record),
                commands=self._commands(
                    asked, labels, template, pair, classifier.settings
                ),
            )
            looks = moments[0].looks
            if pair:
                waiting = words_html(["The maps of the evidence are being computed …"])
                tell((shown._replace(evidence=waiting), looks))
                found = explain(
                    classifier, image, *pair, template=template, n_samples=N_EVIDENCE
                )
                shown = shown._replace(evidence=evidence_html(found))
            tell((shown, looks))

    def takes_prompts(self, model: str) -> bool:
        """Whether a model takes any label, or knows classes of its own alone."""
        return self.classifier(model, self.strategies[0]).model.kind == "text"

    def _labels(self, text: str) -> tuple[str, ...] | None:
        """Labels that commas or lines separate; None where there are none."""
        lines = (line.strip().rstrip(",") for line in text.splitlines())
        names = split_labels(",".join(line for line in lines if line))
        if len(names) > self._max_labels:
            raise DiffjaxError(
                f"{len(names):,} labels are more than the {self._max_labels:,} that "
                "this page takes. `diffjax classify` takes any number, from a file by "
                "--prompts; `diffjax app --max-labels` lets the page take more."
            )
        return check_labels(names) if names else None

    def classifier(self, name: str, strategy: str) -> "DiffusionClassifier":
        """As ``DiffusionClassifier.from_pretrained``, of a model that stays loaded.

        Raises:
            DiffjaxError: As it does; and if model or strategy are not offered.
        """
        from diffjax.checkpoints.loading import load_model
        from diffjax.classify.classifier import PARTS, DiffusionClassifier

        if name not in self.models:
            raise unknown("model", name, self.models)
        if strategy not in self.strategies:
            raise unknown("strategy", strategy, self.strategies)
        options = {k: v for k, v in self._options.items() if v is not None}
        dtype = options.pop("dtype", "auto")
        parts: Any = {part: options.pop(part) for part in PARTS if part in options}
        settings = settings_from(options | {"strategy": strategy}, name)
        if name not in self._loaded:
            self._loaded[name] = load_model(name, dtype=dtype, **parts)
        return DiffusionClassifier(self._loaded[name], settings)

    def _flops_each(
        self, classifier: "DiffusionClassifier", candidates: "Candidates"
    ) -> float:
        from diffjax.classify.race import flops_each

        name = classifier.model.name
        if name not in self._flops:  # how many classes there are changes nothing
            self._flops[name] = flops_each(classifier, candidates)
        return self._flops[name]

    def _commands(
        self,
        asked: Asked,
        labels: Sequence[str] | None,
        template: str,
        pair: Sequence[str],
        settings: Settings,
    ) -> str:
        """The command lines that do the same, to be copied into a shell."""
        name = asked.name if not asked.name.startswith("-") else f"./{asked.name}"
        prompt = [] if template == DEFAULT_TEMPLATE else ["--template", template]
        strategy = [] if asked.strategy == STRATEGY else ["--strategy", asked.strategy]
        noise = []  # which learned samples say, and only one of the commands knows them
        if settings.samples is not None:
            noise = ["--seed", str(settings.seed), "--noise", settings.noise]
        lines = []
        for command, names, how in (
            ("classify", labels, strategy),
            *([("explain", pair, noise)] if pair else []),
        ):
            chosen = ["--labels", join_labels(names)] if names else []
            words = ["diffjax", command, name, *chosen, "--model", asked.model]
            words += [*prompt, *self._given(command), *how]
            if max(len(os.fsencode(word)) for word in words) > MAX_WORD:
                lines.append("# too many labels for a command line: see --prompts")
            else:
                lines.append(shlex.join(words))
        return "\n".join(lines)

    def _given(self, command: str) -> list[str]:
        """What the command that started the page was told, if this one knows it."""
        known = {option.name for option in group.commands[command].params}
        return [
            w for name, words in self._words.items() if name in known for w in words
        ]


def _seen(lines: Sequence[str], asked: Asked) -> list[str]:
    """Lines as the visitor understands them, who knows the image by another name."""
    known = [line.replace(asked.image or asked.name, asked.name) for line in lines]
    return list(dict.fromkeys(known))


def class_lists() -> dict[str, tuple[list[str], str]]:
    """The labels and the template of the package's prompts, by their names.

    Only of those that have one template, and no label twice.
    """
    found = {}
    for name in PRESETS:
        said: list[str] = []
        try:
            with notes(said.append):
                prompts = Prompts.read_csv(prompts_file(name))
        except DiffjaxError:  # it has another's
            continue
        if said:
            continue
        label, prompt = prompts.class_names[0], prompts.prompts[0]
        template = prompt.replace(label, "{}", 1)
        same = tuple(template.replace("{}", each) for each in prompts.class_names)
        if template.count("{}") == 1 and same == prompts.prompts:
            found[name] = list(prompts.class_names), template
    return found
