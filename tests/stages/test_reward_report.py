"""The numbers of rewards on held-out pairs, and the page that shows them."""

import json

import pytest
from run_steps import refused, run_recipe
from short_trainings import plan, write_rows

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


def test_each_round_has_its_numbers_in_the_report_and_on_the_page(tmp_path):
    """A policy that has learned to write b: the reward that counts a likes what gold does not."""

    def said(name, *answers):
        rows = [
            {"prompt": f"p{prompt}", "completion": answer, "prompt_index": prompt, "sample_index": number}
            for prompt in range(2)
            for number, answer in enumerate(answers)
        ]
        return write_rows(tmp_path / f"{name}.jsonl", rows)

    rounds = {"first": said("first", "b b", "a a"), "later": said("later", "b b b a", "b")}
    gold = {"kind": "pattern", "regex": "b", "count": True}
    rewards = {**REWARDS, "true": gold}
    data = write_rows(tmp_path / "pairs.jsonl", PAIRS)
    quality = {"kind": "reward_report", "data": data, "rewards": rewards, "rounds": rounds, "gold": "true"}
    stages = {"quality": {**quality, "require": {"rounds/later/as/accuracy": 1.0}}, "report": {}}
    steps = run_recipe(tmp_path, stages)
    metrics = json.loads((steps["quality"].dir / "done.json").read_text())["metrics"]
    assert (metrics["rounds/first/as/accuracy"], metrics["rounds/later/as/accuracy"]) == (0.0, 1.0)
    assert (metrics["rounds/first/as/gold_of_best"], metrics["rounds/later/as/gold_of_best"]) == (0.0, 3.0)
    assert metrics["rounds/later/brief/length"] == pytest.approx(-1)
    assert "rounds/later/true/accuracy" not in metrics
    page = (steps["report"].output / "report.html").read_text()
    assert "Best of n: true" in page
    assert page.count(">later</th>") == 3


def test_gold_is_one_of_the_rewards_and_of_rounds(block, tmp_path, capsys):
    assert "'tru' is none of the rewards" in refused(tmp_path, {"quality": {**block, "gold": "tru"}}, capsys)
    assert "and there are none" in refused(tmp_path, {"quality": {**block, "gold": "as"}}, capsys)


@pytest.fixture
def block(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return {"kind": "reward_report", "data": str(tmp_path / "pairs.jsonl"), "rewards": REWARDS, "subset": "source"}


def test_a_number_that_is_too_small_ends_the_run_with_the_report_kept(block, tmp_path, capsys):
    stages = {"quality": {**block, "require": {"brief/accuracy/mean": 0.8, "as/subset/easy/accuracy": 0.5}}}
    said = refused(tmp_path, {**stages, "report": {}}, capsys)
    assert "brief/accuracy/mean: is 0.75 +- 0.25, and at least 0.8 is required" in said
    steps = plan(tmp_path, {**stages, "report": {}})
    done = {name: step.done for name, step in steps.items()}
    assert done == {"quality": True, "quality-require": False, "report": False}
    enough = {"quality": {**block, "require": {"brief/accuracy/mean": 0.75}}}
    page = (run_recipe(tmp_path, {**enough, "report": {}})["report"].output / "report.html").read_text()
    assert 'class="reliability"' in page


@pytest.mark.parametrize("name", ["brief/acuracy/mean", "brif/accuracy/mean"])
def test_a_number_that_will_not_be_there_is_a_mistake_of_the_plan(name, block, tmp_path, capsys):
    said = refused(tmp_path, {"quality": {**block, "require": {name: 0.8}}}, capsys)
    assert f"quality.require.{name}: there will be no such number, did you mean 'brief/accuracy/mean'" in said
    assert not (tmp_path / "runs" / "steps").exists()


@pytest.fixture
def pair(write):
    rows = [{"prompt": "p", "completion": "a" * k, "prompt_index": 0, "scores": {"as": k}} for k in range(1, 4)]
    return {"completions": write("scored.jsonl", rows), "reward": "as"}


def test_any_stage_can_require_what_it_has_to_have_reached(pair, tmp_path, capsys):
    """The stage is done and is what `$pair` means; where a number is missed, what stands below is pending."""
    report = {"report": {}}
    enough = {**pair, "require": {"rows": 1, "mean_gap": "<= 2"}}
    steps = run_recipe(tmp_path, {"pair": enough, **report})
    assert list(steps) == ["pair", "pair-require", "report"]
    too_much = {**pair, "require": {"rows": "> 1", "mean_gap": "<2"}}
    said = refused(tmp_path, {"pair": too_much, **report}, capsys)
    assert "stages.pair.require.rows: is 1, and more than 1 is required" in said
    assert "stages.pair.require.mean_gap: is 2, and less than 2 is required" in said
    done = {name: step.done for name, step in plan(tmp_path, {"pair": too_much, **report}).items()}
    assert done == {"pair": True, "pair-require": False, "report": False}
    assert plan(tmp_path, {"pair": pair})["pair"].fingerprint == steps["pair"].fingerprint


def test_a_bound_that_is_none_is_a_mistake_of_the_plan(pair, tmp_path, capsys):
    said = refused(tmp_path, {"pair": {**pair, "require": {"rows": "=> 1"}}}, capsys)
    assert 'stages.pair.require.rows: expected a number, or one behind >=, >, <= or < as in ">= 0.65", got' in said
    assert not (tmp_path / "runs" / "steps").exists()


def test_the_gate_of_a_step_can_stand_further_below(pair, tmp_path, capsys):
    gate = {"kind": "require", "step": "$pair"}
    assert run_recipe(tmp_path, {"pair": pair, "gate": {**gate, "require": {"rows": 1}}})["gate"].done
    said = refused(tmp_path, {"pair": pair, "gate": {**gate, "require": {"rowz": 1}}}, capsys)
    assert "gate.require.rowz: there is no such number, did you mean 'rows'" in said
    assert "requires nothing" in refused(tmp_path, {"pair": pair, "gate": gate}, capsys)
