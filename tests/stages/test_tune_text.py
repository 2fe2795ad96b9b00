"""A text that is rewritten from failures: a policy and a reflector by script, of which the best text is known."""

import json
import random
import re
import shutil

import pytest
from outputs import metrics_of, rows_of
from reward_servers import Server, closed_port, sampled_at
from run_steps import broken, refused, run_recipe
from short_trainings import plan, write_rows

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.running import runner
from trimtab.pipelines.scoring import text_search
from trimtab.pipelines.scoring.prefaced_policy import PrefacedPolicy

RULES = "abcdefgh"  # a prompt needs one of them in the text before it, and is then answered right


def rows(count, first=0):
    """Prompts that need one rule each; the reflector is told which."""
    needed = [RULES[number % len(RULES)] for number in range(first, first + count)]
    return [{"prompt": [{"role": "user", "content": f"need {rule}"}], "rule": f"rule-{rule}"} for rule in needed]


def answer(asked):
    rule = re.search(r"need (\w)", asked)[1]
    return "right" if f"rule-{rule}" in asked else "no"


def rewritten(seed):
    """A reflector that adds the rules of the failures which it is shown; where it is shown none, a random rule.

    It says half of a smiley each time, as a model does that is cut off in one.
    """
    draw = random.Random(seed)

    def reply(handler, body):
        question = body["messages"][0]["content"]
        text = question.split("```")[1].strip()
        failures = re.findall(r"Score: 0\.\nrule: (rule-\w)", question)
        new = failures if "Feedback" in question else [f"rule-{draw.choice(RULES)}"]
        content = f"Sure \ud83d:\n```\n{' '.join(sorted({*text.split(), *new}))}\n```"
        handler.reply({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})

    return reply


@pytest.fixture
def policy(model, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with sampled_at(model, answer, tokens=8) as block:
        yield block


@pytest.fixture
def served(policy):
    """Makes the block of a stage whose reflector is a new server, which is given too."""
    servers = []

    def stage(tmp_path, seed=0, **options):
        server = Server(rewritten(seed))
        servers.append(server)
        return server, {
            "kind": "tune_text",
            **policy,
            "text": "Begin.",
            "prompts": write_rows(tmp_path / "prompts.jsonl", rows(8)),
            "eval_prompts": write_rows(tmp_path / "held-out.jsonl", rows(16, first=3)),
            "rewards": {"right": {"kind": "pattern", "regex": "right"}},
            "reward": "right",
            "hints": ["rule"],
            "reflector": {"model": "scripted", "url": server.url, "tries": 1},
            "budget": 100,
            **options,
        }

    yield stage
    for server in servers:
        server.close()


def overlapping(row):
    return {key: value for key, value in row.items() if "overlap" in key}


def candidates(step):
    return [json.loads(line) for line in (step.output / "candidates.jsonl").read_text().splitlines()]


def test_failures_lead_to_the_best_text_and_blind_rewrites_do_not_at_the_same_price(served, tmp_path, caplog):
    _, reflect = served(tmp_path)
    _, blind = served(tmp_path, method="random")
    asked = {"kind": "preface", "prompts": reflect["prompts"], "text": "$tune"}
    steps = run_recipe(tmp_path, {"tune": reflect, "blind": blind, "asked": asked})
    tuned, control = metrics_of(steps["tune"]), metrics_of(steps["blind"])
    assert (tuned["held_out/start"], tuned["held_out/best"], tuned["gain/mean"]) == (0, 1, 1)
    assert tuned["gain/stderr"] == 0
    assert "stages.tune.prompts: " in caplog.text
    assert "also a row of eval_prompts, as in 8 of 8 rows (audit: overlap)" in caplog.text
    assert {"prompts/warned/overlap": 8} in map(overlapping, tracking.read(steps["tune"].dir / "metrics.jsonl"))
    assert control["held_out/best"] < 1
    for metrics in (tuned, control):
        assert metrics["calls"] <= 100 < metrics["calls"] + 2 * 3 + 8
    text = (steps["tune"].output / "text.txt").read_text()
    assert set(text.split()) == {"Begin.", *(f"rule-{rule}" for rule in RULES)}
    for row, before in zip(rows_of(steps["asked"]), rows(8), strict=True):
        assert row["prompt"] == [{"role": "system", "content": text}, *before["prompt"]]
        assert row["rule"] == before["rule"]


def test_every_text_says_where_it_comes_from(served, tmp_path):
    server, block = served(tmp_path)
    step = run_recipe(tmp_path, {"tune": block})["tune"]
    start, *others = candidates(step)
    assert (start["text"], start["parent"], start["selection"]) == ("Begin.", None, 0)
    assert len(others) == len(server.seen) == metrics_of(step)["rewrites"]
    for one, (_, _, body) in zip(others, server.seen, strict=True):
        assert one["question"] == body["messages"][0]["content"]
        assert candidates(step)[one["parent"]]["text"] in one["question"]
        assert one["text"] in one["reply"]
        assert one["reply"].startswith("Sure \ufffd:")
        known = sum(f"rule-{rule}" in one["text"] for rule in RULES)
        assert one["selection"] in (None, known / 8)
        assert len(one["scores"]) == 3
    assert [one["calls"] for one in others] == sorted(one["calls"] for one in others)
    kept = [one for one in others if one["selection"] is not None]
    assert metrics_of(step)["kept"] == len(kept)
    assert metrics_of(step)["selection/best"] == max(one["selection"] for one in kept)


def test_a_search_that_was_killed_pays_for_nothing_twice(served, tmp_path, monkeypatch):
    server, block = served(tmp_path)
    step = run_recipe(tmp_path, {"tune": block})["tune"]
    artifact = {path.name: path.read_text() for path in step.output.iterdir()}
    calls = step.dir / "calls.jsonl"
    lines = calls.read_text().splitlines(keepends=True)
    asked = len(server.seen)
    left = 2 * len(lines) // 3
    (step.dir / "done.json").unlink()
    shutil.rmtree(step.output)
    calls.write_text("".join(lines[:left]) + lines[left][:-5])  # torn in its last line
    trials, trial = [], PrefacedPolicy.__call__
    monkeypatch.setattr(PrefacedPolicy, "__call__", lambda *given: trials.extend(given[2]) or trial(*given))
    path = str(tmp_path / "recipe.yaml")
    assert runner.train(path) == 0
    assert {file.name: file.read_text() for file in Recipe.load(path).steps[0].output.iterdir()} == artifact
    assert calls.read_text().splitlines() == [line.rstrip("\n") for line in lines]
    missing = ["reply" in line for line in lines[left:]]
    assert (len(server.seen) - asked, len(trials)) == (sum(missing), len(missing) - sum(missing))


def test_a_reflector_that_is_away_ends_the_step_and_keeps_what_was_tried(served, tmp_path, capsys):
    server, block = served(tmp_path)
    away = {"model": "scripted", "url": f"http://127.0.0.1:{closed_port()}/v1/chat/completions", "tries": 1}
    told = broken(tmp_path, {"tune": {**block, "reflector": away}}, capsys)
    assert "the reflector does not reply" in told
    assert "what was tried is kept: the same command goes on" in told
    assert run_recipe(tmp_path, {"tune": {**block, "reflector": {**away, "url": server.url}}})["tune"].done


def test_a_checkpoint_here_rewrites_and_answers_too(model, tmp_path):
    block = {
        "kind": "tune_text",
        "model": {"model_name_or_path": model},
        "generate": {"max_new_tokens": 4},
        "text": "say a",
        "prompts": write_rows(tmp_path / "prompts.jsonl", rows(4)),
        "rewards": {"brief": {"kind": "length", "target": 1}},
        "reward": "brief",
        "reflector": {"model": model, "max_tokens": 8},
        "num_generations": 2,
        "minibatch": 1,
        "budget": 16,
    }
    first = run_recipe(tmp_path, {"tune": block})["tune"]
    again = run_recipe(tmp_path, {"tune": block}, output_dir=str(tmp_path / "again"))["tune"]
    assert metrics_of(first)["rewrites"] >= 2
    texts = [[one["text"] for one in candidates(step)] for step in (first, again)]
    assert texts[0] == texts[1], "of one seed"
    assert len(set(texts[0])) > 2, "it draws its replies"


def test_what_cannot_be_searched_is_told(served, tmp_path, capsys, monkeypatch):
    _, block = served(tmp_path)

    def told(**options):
        return refused(tmp_path, {"tune": {**block, **options}}, capsys)

    assert "tune.budget: must be at least 1, got 0" in told(budget=0)
    assert "tune.asks: has no <side_info>" in told(asks="Improve <curr_param>")
    assert "tune.reward: no reward 'rigth' in the scores, did you mean 'right'?" in told(reward="rigth")
    assert "tune.engine: prompts change with every text" in told(engine="vllm", server=None)
    assert "tune: no text at ./nowhere.txt" in told(text="./nowhere.txt")
    assert "tune.reflector: url must be the whole address" in told(reflector={"model": "m", "url": "host:8000"})
    assert "needed" in told(hints=["rule", "answer"])
    assert "tune.budget: is 20: the start takes 8 calls, one rewrite up to 14" in told(budget=20)
    monkeypatch.setattr(text_search, "find_spec", lambda name: None)
    assert "gepa, which is missing: pip install 'trimtab[tuning]'" in told()


def test_where_and_how_patiently_one_asks_is_no_other_step(served, tmp_path):
    _, block = served(tmp_path)
    (step,) = plan(tmp_path, {"tune": block}).values()
    elsewhere = {**block, "reflector": {**block["reflector"], "url": "http://other:1/v1", "timeout": 9}}
    assert plan(tmp_path, {"tune": elsewhere})["tune"].fingerprint == step.fingerprint
    other = {**block, "reflector": {**block["reflector"], "model": "another"}}
    assert plan(tmp_path, {"tune": other})["tune"].fingerprint != step.fingerprint
