"""Pages of the documentation that stand elsewhere in the repository; a hook of mkdocs.

Pages in docs/ link to files outside of it, and the README to both, as one reads them in
a repository. On the site these links lead to pages of the same content:

    sections of README.md         the pages that mkdocs.yml names, as results.md
    NAME.md, NAME.ipynb           repository/NAME.md, repository/NAME.ipynb.md
    source and other text         repository/NAME.md, which shows it
    a folder                      repository/NAME/index.md, which lists it

Whatever a page links to is added, and so on. What links to nothing is left as it is, so
that `mkdocs build --strict` fails.
"""

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS, README, PLACE = "docs/", "README.md", "repository/"
LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml"}
_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of the README, and all that pages link to."""
    sections = config.extra["readme"]
    for name in sections:
        files.append(File.generated(config, name, content=of_readme(sections[name])))
    waiting = [file for file in files if file.is_documentation_page()]
    while waiting:
        file = waiting.pop()
        for path in linked(file.content_string, origin(file.src_uri)):
            page = page_of(path, sections)
            if page in files.src_uris or not page.startswith(PLACE):
                continue
            files.append(added(config, page, path))
            if files.src_uris[page].is_documentation_page():
                waiting.append(files.src_uris[page])
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Let links lead to the pages of what they lead to in the repository."""
    here = page.file.src_uri
    sections = config.extra["readme"]

    def led(link: re.Match[str]) -> str:
        words, to, anchor = link[1], link[2], link[3] or ""
        path = resolved(to, origin(here))
        if path is None:
            return link[0]
        target = page_of(path, sections, anchor)
        if words == to and (file := files.src_uris.get(target)) and file.page:
            words = file.page.title or words  # rather than the name of its file
        place = posixpath.relpath(target, posixpath.dirname(here))
        return f"[{words}]({place}{anchor})"

    parts = _FENCE.split(markdown)  # code at odd places
    parts[::2] = [_LINK.sub(led, part) for part in parts[::2]]
    return "".join(parts)


def origin(page: str) -> str:
    """Where in the repository the text of a page stands."""
    if page.startswith(PLACE):
        path = page.removeprefix(PLACE)
        return path if (ROOT / path).exists() else posixpath.splitext(path)[0]
    return DOCS + page if (ROOT / DOCS / page).exists() else README


def resolved(link: str, text: str) -> str | None:
    """The path in the repository that a link in a text leads to, if it does."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(text), link))
    return path if (ROOT / path).exists() else None


def linked(markdown: str, text: str) -> Iterator[str]:
    """The paths in the repository that a text links to."""
    for part in _FENCE.split(markdown)[::2]:
        for link in _LINK.finditer(part):
            if path := resolved(link[2], text):
                yield path


def page_of(path: str, sections: Mapping[str, list[str]], anchor: str = "") -> str:
    """The page (or picture) of the site that shows a path in the repository."""
    if path == README:
        first, *_ = sections
        slugs = {
            f"#{section.lower().replace(' ', '-')}": page
            for page, names in sections.items()
            for section in names
        }
        return slugs.get(anchor, first)
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    if (ROOT / path).is_dir():
        return f"{PLACE}{path}/index.md"
    plain = posixpath.splitext(path)[1] in (".md", ".png")
    return f"{PLACE}{path}" if plain else f"{PLACE}{path}.md"


def added(config: MkDocsConfig, page: str, path: str) -> File:
    """The page of a path outside docs/."""
    place = ROOT / path
    if place.is_dir():
        names = sorted(entry.name for entry in place.iterdir() if entry.is_file())
        lines = [f"- [`{name}`]({name})" for name in names]
        # links of a folder's page are those of a text in it
        return File.generated(
            config, page, content="\n".join([f"# `{path}`", "", *lines])
        )
    if place.suffix in (".md", ".png"):
        return File.generated(config, page, abs_src_path=str(place))
    text = place.read_text(encoding="utf-8")
    if place.suffix == ".ipynb":
        return File.generated(config, page, content=notebook(json.loads(text)))
    language = LANGUAGES.get(place.suffix, "text")
    content = f"# `{path}`\n\n````{language}\n{text.rstrip()}\n````\n"
    return File.generated(config, page, content=content)


def of_readme(names: list[str]) -> str:
    """Sections of the README as a page; the first is preceded by what opens it."""
    text = (ROOT / README).read_text(encoding="utf-8")
    opening, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    found = {part.partition("\n")[0]: part for part in parts}
    if names[0] == next(iter(found)):
        return opening + "".join(f"## {found[name]}" for name in names)
    first = found[names[0]].partition("\n")[2]
    return f"# {names[0]}\n{first}" + "".join(f"## {found[name]}" for name in names[1:])


def notebook(content: Mapping[str, Any]) -> str:
    """A notebook with its saved outputs, in Markdown."""
    blocks = []
    for cell in content["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
            continue
        blocks.append(f"```python\n{source}\n```")
        blocks += [shown(output) for output in cell["outputs"]]
    return "\n\n".join(blocks)


def shown(output: Mapping[str, Any]) -> str:
    """One output of a cell."""
    if output["output_type"] == "stream":
        return "```text\n" + "".join(output["text"]).rstrip() + "\n```"
    data = {kind: "".join(value) for kind, value in output["data"].items()}
    if picture := data.get("image/png"):
        return f'<img alt="" src="data:image/png;base64,{"".join(picture.split())}">'
    if markup := data.get("text/html"):
        # without pandas' own borders, so that the theme's apply
        return markup.replace("\n", "").replace(' border="1" class="dataframe"', "")
    return "```text\n" + data["text/plain"] + "\n```"
