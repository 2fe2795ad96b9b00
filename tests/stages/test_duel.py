"""Completions against one another by a judge over HTTP: wins, ties and failures are counted, and become pairs."""

import re

import pytest
from outputs import metrics_of, rows_of
from reward_servers import Server
from run_steps import refused, run_recipe, write_recipe
from short_trainings import plan, write_rows

from trimtab.pipelines.labelling.judgements import Judgement
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.reporting import by_prompt, records, sections
from trimtab.pipelines.running import failures, labelling, runner
from trimtab.rewards import outcomes
from trimtab.rewards.judge import Judge


def rows(*texts_of_prompts):
    """Sampled completions, as `sample` numbers them."""
    table = []
    for index, texts in enumerate(texts_of_prompts):
        for number, text in enumerate(texts):
            table.append(
                {"prompt": f"prompt {index}", "completion": text, "prompt_index": index, "sample_index": number}
            )
    return table


def verdict(question):
    """Of a judge that likes more of the letter a, does not know about x, and takes the first of equals."""
    first, second = [part.partition("]\n")[2].split("\n\n")[0] for part in question.split("[Answer")[1:]]
    if "x" in first + second:
        return "I cannot say."
    return f"Verdict: {'A' if first.count('a') >= second.count('a') else 'B'}"


def reply(handler, body):
    [message] = body["messages"]
    choice = {"message": {"role": "assistant", "content": verdict(message["content"])}, "finish_reason": "stop"}
    handler.reply({"choices": [choice], "usage": {"total_tokens": 10}})


def biased(question):
    """Of a judge that takes what stands first where it is asked about an odd prompt, and is honest elsewhere."""
    number = int(question.split("prompt ")[1][0])
    return "Verdict: A" if number % 2 else verdict(question)


def reply_with_bias(handler, body):
    said = biased(body["messages"][0]["content"])
    choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    handler.reply({"choices": [choice], "usage": {"total_tokens": 10}})


@pytest.fixture
def judge():
    server = Server(reply)
    yield {"kind": "judge", "url": server.url, "model": "m", "mode": "pairwise", "against": "other"}, server
    server.close()


def test_a_judge_s_bias_for_a_place_stands_on_the_page_wherever_it_was_asked(tmp_path):
    """Of 4 prompts it flips on 2, so that the first place is preferred in 3 of 4; elsewhere the longer answer wins."""
    server = Server(reply_with_bias)
    block = {"kind": "judge", "url": server.url, "model": "m", "mode": "pairwise", "against": "other"}
    ours, theirs = ["aaa", "aaa", "aaa", "aaa"], ["a", "a", "a", "a"]
    mine = write_rows(tmp_path / "ours.jsonl", rows(*([said] for said in ours)))
    other = write_rows(tmp_path / "theirs.jsonl", rows(*([said] for said in theirs)))
    pairs = [
        {"prompt": f"prompt {number}", "chosen": better, "rejected": worse}
        for number, (better, worse) in enumerate(zip(ours, theirs, strict=True))
    ]
    beside = write_rows(tmp_path / "beside.jsonl", [{**row, "other": "a"} for row in rows(*([said] for said in ours))])
    inside = {"kind": "composite", "rewards": {"better": block}, "weights": {"better": 1}}
    stages = {
        "duel": {"completions": mine, "opponent": other, "rewards": {"better": block}},
        "score": {"completions": beside, "rewards": {"whole": inside}},
        "reward_report": {"data": write_rows(tmp_path / "pairs.jsonl", pairs), "rewards": {"better": block}},
        "report": {},
    }
    try:
        steps = run_recipe(tmp_path, stages)
    finally:
        server.close()
    shown = [row for step in steps.values() for row in sections.logged_by_rewards(records.read(step.output, step))]
    assert [(row["record"]["name"], row["reward"]) for row in shown] == [
        ("duel", "better"),
        ("score", "whole/better"),
        ("reward_report", "better"),
    ]
    for row, count in zip(shown, (4, 4, 8), strict=True):
        means = [number["mean"] for number in row["numbers"].values()]
        assert means == pytest.approx([0.5, 0.5, 0.75, 0.75]), "flips, ties, the first place, the longer answer"
        assert row["failed"] == 0
        assert row["numbers"]["Flips with the order"]["stderr"] == pytest.approx((0.25 / (count - 1)) ** 0.5)
    page = (steps["report"].output / "report.html").read_text()
    assert len(re.findall('<td class="n">0.750? ± ', page)) == 2 * 3


def test_two_policies_meet_and_ties_flips_and_failures_are_counted(judge, tmp_path):
    block, server = judge
    ours = write_rows(tmp_path / "ours.jsonl", rows(["aa", "b"], ["same", "ab"], ["x", "aaaa"]))
    theirs = write_rows(tmp_path / "theirs.jsonl", rows(["a", "a"], ["same", "ba"], ["a", "b"]))
    rewards = {"better": {**block, "on_failure": "abstain", "max_failures": 0.5}}
    step = run_recipe(tmp_path, {"duel": {"completions": ours, "opponent": theirs, "rewards": rewards}})["duel"]
    assert [row["scores"]["better"] for row in rows_of(step)] == [1.0, 0.0, 0.5, 0.5, None, 1.0]
    metrics = metrics_of(step)
    assert len(server.seen) == 2 * 5, "the same text is nobody's question, every other one two"
    assert metrics["duels"] == 6
    assert metrics["equal"] == pytest.approx(1 / 6)
    assert metrics["better/unjudged"] == pytest.approx(1 / 6)
    assert metrics["better/ties"] == pytest.approx(2 / 5)
    assert metrics["better/wins/mean"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert metrics["better/wins/stderr"] == pytest.approx(1 / 6)
    assert metrics["better/longer_wins"] == 1.0
    assert metrics["rewards/better/flipped/mean"] == 0.25
    assert metrics["rewards/better/preferred_first/mean"] == pytest.approx(0.625)
    assert list(by_prompt.read(step.output)["better/wins/mean"].values()) == [0.5, 0.5, 1.0]


def test_completions_of_a_prompt_meet_and_become_pairs(judge, tmp_path):
    block, server = judge
    data = write_rows(tmp_path / "sampled.jsonl", rows(["a", "aaa", "aa"], ["b", "ba"]))
    stages = {
        "duel": {"completions": data, "rewards": {"better": block}},
        "pair": {"completions": "$duel", "reward": "better"},
    }
    steps = run_recipe(tmp_path, stages)
    assert [row["scores"]["better"] for row in rows_of(steps["duel"])] == [0.0, 1.0, 0.5, 0.0, 1.0]
    assert [(row["chosen"], row["rejected"]) for row in rows_of(steps["pair"])] == [("aaa", "a"), ("ba", "b")]
    assert len(server.seen) == 2 * 4
    assert "better/wins/mean" not in metrics_of(steps["duel"])


def test_a_policy_against_itself_is_even_and_asks_nobody(judge, tmp_path):
    block, server = judge
    data = write_rows(tmp_path / "sampled.jsonl", rows(["a", "b"]))
    step = run_recipe(tmp_path, {"duel": {"completions": data, "opponent": data, "rewards": {"better": block}}})
    assert metrics_of(step["duel"])["better/wins/mean"] == 0.5
    assert not server.seen


def test_what_cannot_meet_is_told(judge, tmp_path, capsys):
    block, _ = judge
    data = write_rows(tmp_path / "sampled.jsonl", rows(["a", "b"]))
    fewer = write_rows(tmp_path / "fewer.jsonl", rows(["a"]))
    meeting = {"completions": data, "rewards": {"better": block}}
    assert "has no completion 1 of prompt 0" in refused(tmp_path, {"duel": {**meeting, "opponent": fewer}}, capsys)
    alone = {"duel": {**meeting, "completions": fewer}}
    assert "no two answers of a prompt differ" in refused(tmp_path, alone, capsys)
    both = {"duel": {**meeting, "opponent": fewer, "rounds": 2}}
    assert "duel.rounds: are those of one policy's" in refused(tmp_path, both, capsys)
    grades = {"duel": {**meeting, "rewards": {"better": {"kind": "length", "target": 9, "unit": "characters"}}}}
    assert "take a judge with `mode: pairwise`" in refused(tmp_path, grades, capsys)


def test_a_shrunk_run_has_a_judge_of_pairs_too():
    small = Judge.small({"kind": "judge", "model": "m", "mode": "pairwise", "against": "other"}, None)
    assert outcomes(schema.load_reward(small), ["p"] * 2, ["a", "b"]) == [1.0, 0.0]


def test_evaluate_lets_every_policy_meet_the_baseline(tmp_path):
    judge = {"kind": "judge", "model": "m", "url": "http://host", "mode": "pairwise", "against": "other"}
    block = {
        "policies": {"one": "org/one", "two": "org/two", "three": "org/three"},
        "baseline": "two",
        "prompts": "org/prompts",
        "rewards": {"brief": {"kind": "length", "target": 9}},
        "duels": {"better": judge},
    }
    steps = {step.name: step for step in Recipe.load(str(write_recipe(tmp_path, {"evaluate": block}))).steps}
    assert [name for name in steps if name.endswith("-duel")] == ["evaluate-one-duel", "evaluate-three-duel"]
    meeting = {step.name for step in steps["evaluate-one-duel"].inputs}
    assert meeting == {"evaluate-one-sample", "evaluate-two-sample"}


def test_people_say_which_answer_is_better_and_the_step_waits_for_them(tmp_path, capsys):
    ours = write_rows(tmp_path / "ours.jsonl", rows(["aa", "b"], ["same", "ab"], ["x", "aaaa"]))
    theirs = write_rows(tmp_path / "theirs.jsonl", rows(["a", "a"], ["same", "ba"], ["a", "b"]))
    block = {"completions": ours, "opponent": theirs, "people": {"raters": 2}}
    path = str(write_recipe(tmp_path, {"duel": block}, wandb=False))
    assert runner.train(path) == failures.WAITS
    assert "duel waits for people: 5 of 5 questions have still to be answered by 2 people" in capsys.readouterr().out
    folder = labelling.asked(tmp_path / "runs" / "test")
    for rater in ("ann", "bo"):
        for question in folder.sheet.questions:
            most = [answer.count("a") for answer in question.answers]
            verdict = "skip" if "x" in question.answers else "tie" if most[0] == most[1] else "ranked"
            order = ((1, 0) if most[1] > most[0] else (0, 1)) if verdict == "ranked" else ()
            if rater == "bo" and question.answers == ["aaaa", "b"]:
                order = (1, 0)
            folder.add([Judgement(question.id, rater, verdict, order[:1])])
    assert runner.train(path) == 0
    step = Recipe.load(path).steps[0]
    assert [row["scores"]["people"] for row in rows_of(step)] == [1.0, 0.0, 0.5, 0.5, None, 0.5]
    metrics = metrics_of(step)
    assert metrics["people/wins/mean"] == pytest.approx((0.5 + 0.5 + 0.5) / 3)
    assert metrics["people/unjudged"] == pytest.approx(1 / 6)
    assert metrics["people/raters"] == 2
    assert 0 < metrics["people/agreement/krippendorff"] < 1
    both = {**block, "rewards": {"people": {"kind": "pattern", "regex": "a"}}}
    assert "give this another name" in refused(tmp_path, {"duel": both}, capsys)
    nowhere = {**block, "people": {"labels": ["nowhere.json"]}}
    assert "duel.people.labels.0: no such file: nowhere.json" in refused(tmp_path, {"duel": nowhere}, capsys)


def test_an_evaluation_asks_people_about_every_policy_against_the_baseline(model, prompts, tmp_path):
    block = {
        "policies": {"one": model, "two": model, "three": model},
        "baseline": "two",
        "prompts": prompts,
        "rewards": {"as": {"kind": "pattern", "regex": "a"}},
        "labels": {"raters": 3, "instructions": "Which is kinder?"},
    }
    steps = plan(tmp_path, {"evaluate": block})
    asking = {name: step.options for name, step in steps.items() if step.kind == "duel"}
    assert list(asking) == ["evaluate-one-duel", "evaluate-three-duel"]
    assert all(options["people"] == block["labels"] and options["rewards"] == {} for options in asking.values())
    assert "evaluate-one-duel" not in plan(tmp_path, {"evaluate": {**block, "labels": None}})
