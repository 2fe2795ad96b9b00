"""The numbers of rewards on held-out pairs, and the page that shows them."""

import json

import pytest
from run_steps import refused, run_recipe

PAIRS = [
    {"prompt": "Say a.", "chosen": "a a", "rejected": "b b b", "source": "easy"},
    {"prompt": "Say b.", "chosen": "a a a a", "rejected": "b", "source": "easy"},
    {"prompt": "Say c.", "chosen": "b b", "rejected": "a a a", "source": "<b>hard</b>"},
    {"prompt": "Say d.", "chosen": "c", "rejected": "c c", "source": "<b>hard</b>"},
]
REWARDS = {
    "as": {"kind": "pattern", "regex": "a", "count": True},
    "brief": {"kind": "length", "target": 1},
}


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    quality = {"kind": "reward_report", "data": str(folder / "pairs.jsonl"), "rewards": REWARDS, "subset": "source"}
    return run_recipe(folder, {"quality": quality, "report": {}})


def test_every_reward_has_its_numbers(steps):
    report = json.loads((steps["quality"].output / "reward_report.json").read_text())
    accuracy = report["rewards"]["as"]["accuracy"]
    assert (accuracy["mean"], accuracy["ties"], accuracy["n"]) == (2.5 / 4, 0.25, 4)
    easy, hard = (report["rewards"]["as"]["subsets"][name] for name in ("easy", "<b>hard</b>"))
    assert (easy["accuracy"]["mean"], hard["accuracy"]["mean"]) == (1.0, 0.25)
    assert easy["mean"] == 1.5, "offset of the scores 2, 0, 4, 0"
    assert report["rewards"]["brief"]["accuracy"]["mean"] == 0.75
    assert report["rewards"]["brief"]["length"]["prefers_longer"] == 0.0
    assert report["rewards"]["brief"]["length"]["longer_is_better"] == 0.25
    assert report["agreement"] == [{"rewards": ["as", "brief"], "share": 0.375, "n": 4}]


def test_the_metrics_are_those_of_the_report(steps):
    metrics = json.loads((steps["quality"].dir / "done.json").read_text())["metrics"]
    assert metrics["brief/accuracy/mean"] == 0.75
    assert metrics["as/subset/easy/accuracy"] == 1.0
    assert metrics["agreement/as/brief"] == 0.375


def test_the_page_shows_it_and_escapes_names_of_the_data(steps):
    page = (steps["report"].output / "report.html").read_text()
    assert "&lt;b&gt;hard&lt;/b&gt;" in page
    assert "<b>hard</b>" not in page
    assert 'class="reliability"' in page


def test_a_number_that_is_too_small_ends_the_run(tmp_path, capsys):
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    block = {"kind": "reward_report", "data": str(tmp_path / "pairs.jsonl"), "rewards": REWARDS}
    said = refused(tmp_path, {"quality": {**block, "require": {"brief/accuracy/mean": 0.8}}}, capsys)
    assert "quality.require.brief/accuracy/mean: is 0.75 +- 0.25, and at least 0.8 is required" in said
    assert "did you mean" in refused(tmp_path, {"quality": {**block, "require": {"brief/acuracy/mean": 0.8}}}, capsys)
    run_recipe(tmp_path, {"quality": {**block, "require": {"brief/accuracy/mean": 0.75}}})
