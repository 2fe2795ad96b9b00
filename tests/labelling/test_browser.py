"""The page in a browser: keys, a reload in the middle, two raters, a narrow screen, words that want to be markup."""

import json
import threading
import time

import pytest
from browser import browser, needs_browser  # noqa: F401
from labelling.sheets import EVIL, kept, sheet

from trimtab.pipelines.labelling import formats, page
from trimtab.pipelines.labelling.server import Server

pytestmark = needs_browser
ASKED = "!document.getElementById('asking').hidden"
ENDED = "!document.getElementById('end').hidden"
SAVED = "unsent.size === 0 && !sending"


@pytest.fixture
def serve(tmp_path):
    """Serves a folder, and ends it."""
    running = []

    def start(folder, port=0):
        serving = Server(folder, port)
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((serving, thread))
        return serving

    yield start
    for serving, thread in running:
        serving.shutdown()
        thread.join()
        serving.server_close()


def begin(browser, url, rater):  # noqa: F811
    browser.go(url)
    browser.until("document.activeElement.id === 'rater'")
    browser.write(rater)
    browser.press("Enter")
    browser.until(ASKED)


def chosen(browser, key):  # noqa: F811
    """Presses a key, and returns the question and the place of the answer that stood there."""
    question, place = browser.run(f"[current.id, shown[{key} - 1]]")
    browser.press(key)
    return question, place


def answers(folder, rater):
    return {one.question: one for one in folder.of_rater(rater)}


def test_keys_a_reload_in_the_middle_and_two_raters(browser, serve, tmp_path):  # noqa: F811
    folder = kept(tmp_path, raters=2)
    served = serve(folder)
    begin(browser, served.url, "ann")
    assert "token" not in browser.run("location.href")
    first = chosen(browser, "2")
    browser.press("t")
    browser.until(SAVED)
    before = browser.run("[document.getElementById('count').textContent, current.id, shown]")
    assert before[0] == "2 of 4"
    browser.ask("Page.reload")
    browser.until(f"typeof current === 'object' && current && {ASKED}")
    assert browser.run("[document.getElementById('count').textContent, current.id, shown]") == before
    browser.press("s")
    browser.press("u")
    browser.press("u")
    browser.until("document.getElementById('count').textContent === '1 of 4'")
    for key in ("1", "1", "1"):
        browser.press(key)
    browser.until(f"{ENDED} && {SAVED}")
    ann = answers(folder, "ann")
    assert len(ann) == 4
    assert ann[first[0]].order == (first[1],)
    assert {one.verdict for one in ann.values()} == {"ranked"}
    assert all(0 <= one.seconds < 60 and one.at and len(one.shown) == 2 for one in ann.values())
    assert len(folder.open()) == 4

    begin(browser, served.url.replace("127.0.0.1", "localhost"), "bo")  # another host: nothing of ann's is at hand
    for _ in range(4):
        browser.press("1")
    browser.until(f"{ENDED} && {SAVED}")
    assert not folder.open()
    shown = {one.shown for one in (*ann.values(), *answers(folder, "bo").values())}
    assert shown == {(0, 1), (1, 0)}, "each order is shown to somebody"

    browser.go(served.url)
    browser.until("document.activeElement.id === 'rater'")
    browser.write("cy")
    browser.press("Enter")
    browser.until(ENDED)  # two others have answered everything
    assert not browser.errors


def test_an_answer_that_the_server_did_not_take_is_sent_again(browser, serve, tmp_path):  # noqa: F811
    folder = kept(tmp_path)
    served = serve(folder)
    begin(browser, served.url, "ann")
    browser.run("window.fetched = fetch; window.fetch = () => Promise.reject(new Error('no network'))")
    question, place = chosen(browser, "1")
    browser.until("document.getElementById('problem').textContent.startsWith('Not saved yet: no network')")
    assert not answers(folder, "ann")
    browser.run("window.fetch = window.fetched")
    browser.until(SAVED)
    browser.until("document.getElementById('problem').hidden")
    assert answers(folder, "ann")[question].order == (place,)


def test_hostile_text_is_shown_as_it_is(browser, serve, tmp_path):  # noqa: F811
    begin(browser, serve(kept(tmp_path)).url, "ann <b>")
    time.sleep(0.1)
    assert browser.run("window.hacked") is None
    assert browser.run("document.querySelectorAll('img, main b').length") == 0
    shown = browser.run("[...document.querySelectorAll('.answer .text')].map((one) => one.textContent)")
    assert len(shown) == 2
    assert all(one.endswith(EVIL) for one in shown)
    assert browser.run("document.getElementById('who').textContent") == "ann <b>"
    assert not browser.errors


def test_a_page_without_a_server_keeps_answers_and_gives_them_as_a_file(browser, tmp_path):  # noqa: F811
    asked = sheet(count=3, answers=4, ranked=3, reasons=True)
    file = tmp_path / "label.html"
    file.write_text(page.render(asked))
    begin(browser, file.as_uri(), "ann")
    browser.press("3")
    browser.press("3")  # is named already
    browser.press("1")
    keys = browser.run("[...document.querySelectorAll('.answer kbd')].map((one) => one.textContent)")
    assert keys == ["#2", "2", "#1", "4"]
    browser.press("u")  # names nobody again
    order = browser.run("[3, 1, 4].map((key) => shown[key - 1])")
    browser.run("document.getElementById('reason').focus()")
    browser.write("t s 1")
    browser.press("s")  # in the reason, no skip
    browser.press("Escape")
    for key in ("3", "1", "4"):
        browser.press(key)
    browser.until("document.getElementById('count').textContent === '1 of 3'")
    browser.ask("Page.reload")
    browser.until(f"typeof current === 'object' && current && {ASKED}")
    assert browser.run("document.getElementById('count').textContent") == "1 of 3"
    browser.press("t")
    browser.press("s")
    browser.until(ENDED)
    browser.ask("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.run("document.getElementById('download').click()")
    saved = tmp_path / "ann.json"
    for _ in range(500):
        if saved.is_file():
            break
        time.sleep(0.02)
    first, second, third = formats.read(saved, asked)
    assert (list(first.order), first.reason) == (order, "t s 1s")
    assert (second.verdict, third.verdict) == ("tie", "skip")
    assert json.loads(saved.read_text())["judgements"][0]["rater"] == "ann"


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_screen(width, browser, serve, tmp_path):  # noqa: F811
    browser.size(width, 800)
    begin(browser, serve(kept(tmp_path, answers=5)).url, "ann")
    assert browser.run("document.documentElement.scrollWidth") <= width
    edges = browser.run(
        "[...document.querySelectorAll('footer button')].map((one) => one.getBoundingClientRect().right)"
    )
    assert max(edges) <= width
    tops = browser.run("[...document.querySelectorAll('.answer')].map((one) => one.getBoundingClientRect().top)")
    assert len(set(tops)) == (5 if width == 400 else 2), "side by side where there is room"
    bottom = browser.run("document.querySelector('footer').getBoundingClientRect().bottom")
    assert bottom <= 800.5, "the keys are always there"
