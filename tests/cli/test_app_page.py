"""The page of `diffjax app`, through Gradio's client and in a browser."""

import html
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager

import pytest
from PIL import Image

from diffjax.cli import page
from diffjax.cli.desk import Desk
from diffjax.cli.telling import NAME

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_compile_cache")]
client = pytest.importorskip("gradio_client", reason="pip install 'diffjax[app]'")
pytest.importorskip("gradio", reason="pip install 'diffjax[app]'")

STRATEGY = "racing:n_samples=20:confidence=0.9"
LONG = "exhaustive:n_samples=900"
LABELS = "cat,dog,a"
SOON = 60.0  # seconds, which only a failing test waits
LEFT = re.compile(r"evaluations (\d+)")


outside = []  # addresses that this process has asked or looked for


def listen(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments
        host = address[0] if isinstance(address, tuple) else None  # or a file's
        if host not in (None, "127.0.0.1", "localhost", "::1"):
            outside.append(host)


sys.addaudithook(listen)


class Watched(Desk):
    """A desk that notes when its answers begin and end."""

    def answer(self, asked):
        self.notes.append("begins")
        try:
            yield from super().answer(asked)
        finally:
            self.notes.append("ends")


@pytest.fixture(scope="module")
def desk(folder):
    made = Watched(
        [str(folder / "sd")], {"cells": 2}, {}, strategy=STRATEGY, max_labels=50
    )
    made.strategies = (*made.strategies, LONG)
    return made


@pytest.fixture
def address(desk):
    desk.notes = []
    outside.clear()  # of other tests
    blocks = page.build(desk)
    yield page.serve(blocks, "127.0.0.1", None, browser=False)
    blocks.close()


def submit(session, image, desk, labels=LABELS, strategy=STRATEGY, evidence=False):
    file = client.handle_file(str(image))
    words = (labels, desk.models[0], "a {}", strategy, evidence)
    return session.submit(file, *words, api_name="/classify")


def text(piece):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", piece)).split())


def no_thread_computes():
    for thread in threading.enumerate():
        if thread.name == NAME:
            thread.join(SOON)
            assert not thread.is_alive()


@contextmanager
def within(seconds):
    """A function to be called until it is true; AssertionError after too long."""
    end = time.monotonic() + seconds

    def wait(until):
        while not until():
            assert time.monotonic() < end
            time.sleep(0.05)

    yield wait


def test_a_client_is_answered_as_the_desk_answers(address, desk, folder):
    session = client.Client(address, verbose=False)
    job = submit(session, folder / "noise.png", desk)
    race, table, evidence, command = job.result()
    assert any(" leads " in text(shown[0]) for shown in job.outputs())
    assert " wins evaluations " in text(race) and "Scores of" in text(table)
    assert evidence == "" and command.startswith("diffjax classify noise.png --labels")

    copied = folder / "no-picture.png"
    copied.write_text("words")
    race, *rest = submit(session, copied, desk).result()
    assert "no-picture.png" in text(race) and rest == ["", "", ""]
    many = ",".join(map(str, range(10_000)))
    race, *_ = submit(session, folder / "noise.png", desk, labels=many).result()
    assert "10,000 labels are more than the 50" in text(race)
    large = folder / "large.png"
    Image.new("L", (8000, 6250)).save(large)
    race, *_ = submit(session, large, desk).result()
    assert " wins evaluations " in text(race)


def test_a_second_visitor_waits_for_the_first(address, desk, folder):
    jobs = [
        submit(client.Client(address, verbose=False), folder / "noise.png", desk)
        for _ in range(2)
    ]
    first, second = (job.result() for job in jobs)
    assert first == second and " wins " in text(first[0])
    assert desk.notes == ["begins", "ends"] * 2


def test_who_cancels_ends_the_computation(address, desk, folder):
    session = client.Client(address, verbose=False)
    job = submit(session, folder / "noise.png", desk, strategy=LONG)
    with within(SOON) as wait:
        wait(lambda: any(" takes a first look" in text(o[0]) for o in job.outputs()))
        job.cancel()
        wait(lambda: desk.notes[-1] == "ends")
    no_thread_computes()
    assert all(" wins " not in text(shown[0]) for shown in job.outputs())


def test_the_command_serves_until_it_is_interrupted(folder):
    command = [sys.executable, "-m", "diffjax", "app", "--no-browser", "-q"]
    command += ["--model", str(folder / "sd"), "--host", "localhost"]

    def heard():  # even if whoever runs the tests is deaf to it
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=heard
    ) as process:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        with urllib.request.urlopen(address) as answer:
            assert b"Which label explains the noise best?" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON) == 130


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium")
    flags = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    flags += "--disable-background-networking --disable-component-update"
    with playwright.sync_playwright() as made, tempfile.TemporaryDirectory() as empty:
        context = made.chromium.launch_persistent_context(
            empty, executable_path=program, args=flags.split(), headless=True
        )
        yield context
        context.close()


def test_a_browser_shows_the_race_and_asks_nobody_else(browser, address, desk):
    tab = browser.new_page()
    asked, said = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: said.append(dialog.message))
    tab.goto(address)
    tab.locator(".gallery-item").nth(1).click()
    tab.locator("#picture img").wait_for()
    odd = "<img src=x onerror='alert(1)'>"
    tab.get_by_label("Labels").fill(f"cat, a, dog ${{1+1}} {{{{value}}}}, {odd}")
    tab.get_by_label("Labels").blur()
    tab.get_by_role("button", name="Race", exact=True).click()
    tab.locator("#race .race-lanes li").first.wait_for(timeout=1000 * SOON)
    tab.get_by_text(" wins").first.wait_for(timeout=1000 * SOON)
    lanes = tab.locator("#race .race-lanes li .race-name").all_text_contents()
    assert lanes == ["cat", "a", "dog ${1+1} {{value}}", odd]
    tab.locator(".race-maps img").first.wait_for(timeout=1000 * SOON)
    commands = tab.locator("#commands textarea").input_value().splitlines()
    assert [line.split()[1] for line in commands] == ["classify", "explain"]
    assert "0202_ship.png" in commands[0]
    assert said == []
    elsewhere = [u for u in asked if not u.startswith((address, "data:", "blob:"))]
    assert elsewhere == [] and outside == []
    tab.close()


def test_a_closed_tab_ends_the_computation(browser, address, desk):
    tab = browser.new_page()
    tab.goto(address)
    tab.locator(".gallery-item").nth(1).click()
    tab.locator("#picture img").wait_for()
    tab.get_by_label("Labels").fill(LABELS)
    tab.get_by_text("More", exact=True).click()
    tab.get_by_label("Strategy").click()
    tab.get_by_text(LONG).last.click()
    tab.get_by_role("button", name="Race", exact=True).click()
    tab.get_by_text(" takes a first look").wait_for(timeout=1000 * SOON)
    assert desk.notes == ["begins"]
    tab.close()
    with within(SOON) as wait:
        wait(lambda: desk.notes == ["begins", "ends"])
    no_thread_computes()
