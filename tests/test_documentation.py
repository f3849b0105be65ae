"""What README and docs say is so: commands parse, and the site is whole."""

import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from commands import commands_of, parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# what a browser fetches by itself
FETCHED = {"img": "src", "script": "src", "link": "href", "iframe": "src"}
LIKE_FETCHED = ("canonical",)  # rel of links that it does not


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_understood(page):
    for arguments in commands_of(page.read_text(encoding="utf-8")):
        parse(arguments)


def test_there_are_commands_to_understand():
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert sum(len(list(commands_of(text))) for text in texts) > 50


class Links(html.parser.HTMLParser):
    """What a page leads to, what it fetches, and the places in it."""

    def __init__(self, text):
        super().__init__()
        self.to, self.fetched, self.places = [], [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and "href" in found:
            self.to.append(found["href"])
        if found.get(FETCHED.get(tag)) and found.get("rel") not in LIKE_FETCHED:
            self.fetched.append(found[FETCHED[tag]])


def broken(site):
    """What pages of a folder lead to or fetch that is not there, and from elsewhere."""
    pages = {path: Links(path.read_text("utf-8")) for path in site.rglob("*.html")}
    for page, links in pages.items():
        for link in links.to + links.fetched:
            parts = urlsplit(link)
            if parts.scheme == "data" or (parts.scheme and link in links.to):
                continue
            if parts.scheme or parts.netloc:
                yield page, link, "from elsewhere"
                continue
            path = Path(os.path.normpath(page.parent / unquote(parts.path)))
            target = page if not parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if parts.path.startswith("/"):  # of the page for what is not found
                target = site / parts.path.lstrip("/")
            if not target.exists():
                yield page, link, "not there"
            elif (
                target in pages and unquote(parts.fragment) not in pages[target].places
            ):
                yield page, link, "no such place"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason='pip install ".[docs]" builds the site')
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_has_no_broken_link_and_fetches_nothing_from_elsewhere(site):
    assert not list(broken(site))
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text())


def test_the_site_has_every_public_name_and_page(site):
    import diffjax

    reference = (site / "reference.html").read_text(encoding="utf-8")
    for name in diffjax.__all__:
        assert f'id="diffjax.{name}"' in reference, name
    assert len(list(site.glob("*.html"))) >= len(PAGES)


def test_broken_links_are_found(tmp_path):
    other = '<a id="there"></a>'
    text = (
        '<a href="a.html#there"><a href="a.html#gone"><a href="b.html"><a href="//x">'
    )
    (tmp_path / "a.html").write_text(other)
    (tmp_path / "index.html").write_text(text + '<img src="https://a.org/b.png">')
    assert [(link, why) for _, link, why in broken(tmp_path)] == [
        ("a.html#gone", "no such place"),
        ("b.html", "not there"),
        ("//x", "from elsewhere"),
        ("https://a.org/b.png", "from elsewhere"),
    ]
