"""A reward's text that is rewritten from the pairs that it gets wrong: a judge and a reflector by script."""

import json
import re

import pytest
from outputs import metrics_of, rows_of
from reward_servers import Server, closed_port
from run_steps import broken, refused, run_recipe
from short_trainings import write_rows

WORTHY = ("brief", "kind")


def said(handler, content):
    handler.reply({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})


def judge(handler, body):
    """Grades an answer by those of the words of its rubric that are in it; one that asks for no verdict gets none."""
    question = body["messages"][0]["content"]
    rubric, answer = re.search(
        r"by this rubric:\n(.*?)\n\n\[Question\].*\[Answer\]\n(.*?)\n\n", question, re.S
    ).groups()
    found = [word for word in WORTHY if word in rubric and word in answer]
    said(handler, "no idea" if "silent" in rubric else f"It is {found}.\nVerdict: {1 + len(found)}")


def reflector(handler, body):
    """Keeps the rubric silent once, then names what the better answers of wrong pairs have."""
    question = body["messages"][0]["content"]
    rubric = question.split("```")[1].strip()
    better = re.findall(r"\[chosen\]\na (\w+) answer\n(?:.|\n)*?## Feedback\n(Both|Wrong|Right|There)", question)
    missed = {word for word, verdict in better if verdict in ("Both", "Wrong")}
    new = sorted(missed - set(rubric.split())) if "Feedback" in question else ["whatever"]
    said(handler, f"```\n{' '.join([rubric, *(new or ['silent'])])}\n```")


def pairs(count):
    words = [WORTHY[number % 2] for number in range(count)]
    return [
        {"prompt": f"q{number}", "chosen": f"a {word} answer", "rejected": "an answer"}
        for number, word in enumerate(words)
    ]


@pytest.fixture
def block(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = [Server(judge), Server(reflector)]
    yield {
        "kind": "tune_reward",
        "reward": {"kind": "judge", "model": "m", "url": servers[0].url, "rubric": "Is it good?", "tries": 1},
        "key": "rubric",
        "pairs": write_rows(tmp_path / "pairs.jsonl", pairs(6)),
        "eval_pairs": write_rows(tmp_path / "held-out.jsonl", pairs(8)),
        "reflector": {"model": "m", "url": servers[1].url, "tries": 1},
        "minibatch": 2,
        "budget": 60,
    }
    for server in servers:
        server.close()


def test_pairs_that_a_judge_gets_wrong_lead_to_a_rubric_that_is_read_further_down(block, tmp_path):
    blind = {**block, "method": "random"}
    completions = [{"prompt": "q", "completion": answer} for answer in ("a kind answer", "an answer")]
    score = {
        "completions": write_rows(tmp_path / "completions.jsonl", completions),
        "rewards": {"judge": {**block["reward"], "rubric": "$tune"}},
    }
    steps = run_recipe(tmp_path, {"tune": block, "blind": blind, "score": score})
    tuned, control = metrics_of(steps["tune"]), metrics_of(steps["blind"])
    assert (tuned["held_out/start"], tuned["held_out/best"]) == (0.5, 1)
    assert (control["held_out/start"], control["held_out/best"]) == (0.5, 0.5)
    assert tuned["calls"] <= 60
    assert {*WORTHY} < set((steps["tune"].output / "text.txt").read_text().split())
    assert [row["scores"]["judge"] for row in rows_of(steps["score"])] == [2, 1]
    lines = [json.loads(line) for line in (steps["tune"].output / "candidates.jsonl").read_text().splitlines()]
    silent = [one for one in lines if "silent" in one["text"]]
    assert silent
    assert all(one["scores"] == [0, 0] and one["selection"] is None for one in silent)


def test_a_template_that_cannot_be_used_is_wrong_and_a_server_that_is_away_is_no_zero(block, tmp_path, capsys):
    template = "by this rubric:\nbrief kind\n\n[Question] [Answer]\n{{ completion }}\n\nVerdict?"
    whole = {**block, "key": "template", "reward": {**block["reward"], "template": template}, "method": "random"}
    step = run_recipe(tmp_path, {"tune": whole})["tune"]
    assert metrics_of(step)["held_out/best"] == 1
    server = Server(lambda handler, body: said(handler, "```\nIs it?\n```"))
    step = run_recipe(tmp_path, {"tune": {**whole, "reflector": {"model": "bad", "url": server.url}}})["tune"]
    server.close()
    calls = [json.loads(line)["told"] for line in (step.dir / "calls.jsonl").open() if "told" in line]
    unusable = [one for one in calls if one["feedback"].startswith("This text cannot be used")]
    assert unusable
    assert all(one["score"] == 0 and "{{ completion }}" in one["feedback"] for one in unusable)
    away = {**block["reward"], "url": f"http://127.0.0.1:{closed_port()}/"}
    assert "tcp" in broken(tmp_path, {"tune": {**block, "reward": away}}, capsys)


def test_what_has_no_text_is_told(block, tmp_path, capsys):
    told = refused(tmp_path, {"tune": {**block, "key": "rubrik"}}, capsys)
    assert "tune.key: the reward has no text 'rubrik', did you mean 'rubric'?" in told
    assert "the reward has no text 'template'" in refused(tmp_path, {"tune": {**block, "key": "template"}}, capsys)
    assert "tune.budget: is 9" in refused(tmp_path, {"tune": {**block, "budget": 9}}, capsys)
