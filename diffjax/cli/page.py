"""The page of `diffjax app`: Gradio around a ``Desk``.

Nothing is fetched from elsewhere: fonts are the reader's, Gradio asks nobody. That a
visitor has left Gradio sees by the stream of answers, which the browser closes; it then
closes the iterator that answers, as soon as that gives a word: a ``Desk`` is never
silent for long.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, no_type_check

from diffjax.cli import demo
from diffjax.cli.desk import Asked, Desk, class_lists
from diffjax.data.prompts import join_labels
from diffjax.errors import DiffjaxError, optional
from diffjax.report.lanes import style, words_html

TITLE = "diffjax"
MOST_WAITING = 32  # visitors
MOST_BYTES = 100 * 2**20  # of an upload
KEPT = 3600  # seconds that uploads are
OWN = "my own"
WORDS = """# Which label explains the noise best?
A diffusion model predicts the noise in an image under each label. The label under which
it errs least is the answer; labels that are surely worse leave the race early."""
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
CSS = """
.gradio-container { max-width: 76rem !important; margin: 0 auto !important; }
footer { display: none !important; }
#picture img { width: 100%; height: 100%; object-fit: contain; }
#picture img { image-rendering: pixelated; }
#examples .gallery { gap: 0.3rem; }
#examples .gallery-item, #examples .gallery-item * {
  width: 2.9rem !important; height: 2.9rem !important;
}
#commands textarea { font-family: var(--font-mono); font-size: 0.85rem; }
"""


def gradio() -> Any:
    """Import Gradio, told to report nothing to anybody.

    Raises:
        DiffjaxError: If it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    return optional("gradio", "diffjax app")


def build(desk: Desk) -> Any:
    """The page, as Gradio's Blocks; its answers are the desk's."""
    gr = gradio()

    lists = class_lists()

    @no_type_check  # a wrapper that checks types is no generator function to Gradio
    def answer(
        upload: dict[str, Any] | None,
        labels: str,
        model: str,
        template: str,
        strategy: str,
        evidence: bool,
    ) -> Iterator[tuple[str, ...]]:
        """Classify an image among labels: race, scores, evidence, command lines."""
        path = (upload or {}).get("path")
        asked = Asked(
            image=path,
            name=known_name(path, upload["orig_name"]) if upload and path else "",
            labels=labels or "",
            model=model,
            template=template,
            strategy=strategy,
            evidence=evidence,
        )
        for shown in desk.answer(asked):
            yield (*shown,)

    def choose(name: str) -> tuple[Any, Any]:
        """The labels and the template of a class list."""
        if name not in lists:
            return gr.skip(), gr.skip()
        names, template = lists[name]
        return ", ".join(join_labels([each]) for each in names), template

    def suit(model: str) -> tuple[Any, Any]:
        """No labels for a model that has its own."""
        if desk.takes_prompts(model):
            return gr.skip(), gr.skip()
        return OWN, ""

    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(KEPT, KEPT)
    ) as blocks:
        gr.Markdown(WORDS)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                picture = gr.Image(
                    label="Image",
                    sources=["upload", "clipboard"],
                    height=200,
                    buttons=[],
                    elem_id="picture",
                )
                gr.Examples(
                    [str(path) for path in demo.examples()],
                    picture,
                    label="Examples",
                    elem_id="examples",
                    api_visibility="private",
                )
                labels = gr.Textbox(
                    ", ".join(demo.LABELS),
                    label="Labels",
                    info="With commas or lines between them. A model of classes takes "
                    "all of its own if there are none.",
                    lines=2,
                    max_lines=6,
                )
                with gr.Row():
                    classes = gr.Dropdown(
                        [OWN, *lists],
                        value="cifar10",
                        label="Class list",
                        min_width=130,
                    )
                    model = gr.Dropdown(
                        list(desk.models),
                        value=desk.models[0],
                        label="Model",
                        min_width=130,
                    )
                with gr.Row():
                    go = gr.Button("Race", variant="primary", min_width=100)
                    stop = gr.Button("Stop", min_width=100)
                with gr.Accordion("More", open=False):
                    template = gr.Textbox(
                        demo.TEMPLATE,
                        label="Prompt",
                        info="With {} for the label.",
                    )
                    how = gr.Dropdown(
                        list(desk.strategies),
                        value=desk.strategies[0],
                        label="Strategy",
                    )
                    evidence = gr.Checkbox(True, label="Draw where the evidence lies")
            with gr.Column(scale=3, min_width=320):
                race = gr.HTML(
                    words_html(["Drop an image or take an example, and press Race."]),
                    apply_default_css=False,
                    elem_id="race",
                    min_height=110,
                )
                table = gr.HTML(apply_default_css=False, elem_id="table")
        found = gr.HTML(apply_default_css=False, elem_id="evidence")
        commands = gr.Textbox(
            label="The same in a terminal",
            interactive=False,
            lines=2,
            max_lines=8,
            buttons=["copy"],
            elem_id="commands",
        )
        classes.input(
            choose, classes, [labels, template], queue=False, api_visibility="private"
        )
        model.input(
            suit, model, [classes, labels], queue=False, api_visibility="private"
        )
        run = go.click(
            answer,
            [picture, labels, model, template, how, evidence],
            [race, table, found, commands],
            api_name="classify",
            preprocess=False,  # by which Gradio reads images as it likes
            show_progress="full",
            show_progress_on=race,
        )
        stop.click(None, cancels=[run], api_visibility="private")
    blocks.queue(default_concurrency_limit=1, max_size=MOST_WAITING)
    return blocks


def serve(blocks: Any, host: str, port: int | None, *, browser: bool) -> str:
    """Serve the page from threads of its own, and return its address.

    ``check_address`` has said whether that can be.
    """
    gr = gradio()
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=MOST_BYTES,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        theme=gr.themes.Default(primary_hue="blue", font=FONT, font_mono=MONO),
        # not as css=, of which Gradio drops what it does not know
        head=f"<style>{CSS}{style()}</style>",
    )
    return str(address)


def check_address(host: str, port: int | None) -> None:
    """Raise DiffjaxError if nothing can be served there; None is any port."""
    try:
        [(family, *_, place), *_] = socket.getaddrinfo(host, port or 0)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # a port that was just given back is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        where = host if port is None else f"{host} port {port}"
        raise DiffjaxError(
            f"The page cannot be served at {where} ({error.strerror}). Give another "
            "--port, or an address of this machine as --host."
        ) from None


def known_name(path: str, name: str | None) -> str:
    """What a command calls an image: of an example its place, else its name."""
    name = name or Path(path).name
    for example in demo.examples():
        same = example.name == name and example.read_bytes() == Path(path).read_bytes()
        if same:
            here = Path.cwd()
            within = example.is_relative_to(here)
            return str(example.relative_to(here) if within else example)
    return name
