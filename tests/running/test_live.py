"""`trimtab report`: the page of a run as it is now, which a browser reads again while the run goes."""

import re

import pytest
from run_steps import run_recipe

from trimtab.pipelines.running import live
from trimtab.scripts import report

WORLD = {"kind": "world", "prompts": 8, "sft": 16, "pairs": 16, "test": 4}


@pytest.fixture
def run(tmp_path):
    run_recipe(tmp_path, {"tiny": WORLD, "more": {**WORLD, "seed": 1}})
    return tmp_path / "runs" / "test"


def test_the_page_of_a_run_without_a_stage_report(run, capsys):
    assert report.main([str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "2 steps" in page
    assert 'http-equiv="refresh"' not in page
    assert "2 steps are done" in capsys.readouterr().out


def test_while_someone_works_there_the_page_refreshes_itself(run, monkeypatch):
    (run / "more").resolve().joinpath("done.json").unlink()  # as while it runs
    pages, held = [], iter([True, True, False])
    monkeypatch.setattr(live.locks, "holder", lambda lock: next(held))
    monkeypatch.setattr(live.time, "sleep", lambda seconds: pages.append((run / "report.html").read_text()))
    live.follow(run, run / "report.html")
    assert len(pages) == 2
    assert all('<meta http-equiv="refresh" content="5">' in page for page in pages)
    assert "not finished" in pages[0]
    assert "has no done.json" not in pages[0]
    assert 'http-equiv="refresh"' not in (run / "report.html").read_text()


def test_what_was_changed_since_the_run_before_is_on_the_page(run, tmp_path):
    run_recipe(tmp_path, {"tiny": {**WORLD, "sft": 24}, "more": {**WORLD, "seed": 1}})
    run_recipe(
        tmp_path, {"tiny": {**WORLD, "sft": 24}, "more": {**WORLD, "seed": 1}}
    )  # all done: still the last change
    report.main([str(run)])
    rows = re.findall(r"<tr>(.*?)</tr>", (run / "report.html").read_text().partition('id="changes"')[2], re.DOTALL)
    said = [re.sub(r"<[^>]+>", " ", row).split() for row in rows if "more" not in row]
    assert said[1:3] == [["tiny", "sft", "16", "24"], ["rows/sft/train", "16", "24"]]


def test_a_folder_that_is_no_recipes_is_refused(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "has no steps: name the folder of a recipe" in capsys.readouterr().err
