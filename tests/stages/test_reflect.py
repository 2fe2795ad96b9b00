"""Thoughts that a critic mends: the error falls as rho^N, the policy goes on from them, and all tokens are counted."""

import json

import pytest
from outputs import metrics_of, rows_of
from reward_servers import sampled_at
from run_steps import refused, run_recipe
from short_trainings import write_rows
from transformers import AutoTokenizer

from trimtab.rewards._thoughts import split
from trimtab.rewards.answer_span import AnswerSpan
from trimtab.rewards.length import Length

BEGIN, END = "<|thinking|>", "<|/thinking|>"
ROUNDS, RHO = 3, 0.5


@pytest.fixture
def served(thinker, monkeypatch):
    """How a policy is sampled that answers what it thinks, at first 64, and a critic that halves it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def answer(asked):
        if "write them anew" in asked:
            return str(RHO * float(asked.partition("Thoughts: ")[2].split()[0]))
        return split(asked, BEGIN, END)[0] if asked.endswith(f"{END}\n") else f"{BEGIN}64{END}64"

    with sampled_at(thinker, answer, tokens=40) as block:
        yield block


def test_the_error_of_thoughts_that_are_halved_is_rho_to_the_rounds(served, thinker, tmp_path):
    prompts = write_rows(
        tmp_path / "prompts.jsonl",
        [{"prompt": [{"role": "user", "content": f"say {number}"}], "tag": number} for number in range(3)],
    )
    block = {**served, "prompts": prompts, "critic": served, "rounds": ROUNDS}
    plain = {"kind": "reflect", **block, "rounds": 1}
    rewards = {"brief": {"kind": "answer_span", "rewards": {"brief": {"kind": "length", "target": 2}}}}
    keys = {key: served[key] for key in ("engine", "server", "generate")}
    evaluate = {
        "policies": {"plain": thinker},
        "completions": {"mended": "$reflect"},
        **{"prompts": prompts, "rewards": rewards, "num_generations": 1, **keys},
    }
    steps = run_recipe(tmp_path, {"reflect": block, "once": plain, "evaluate": evaluate})
    assert steps["once-1-thoughts"].dir == steps["reflect-1-thoughts"].dir  # the first round is the same
    tokens, spent = AutoTokenizer.from_pretrained(thinker), [0] * 3
    for number in range(ROUNDS + 1):
        for part in ("thoughts", "sample"):
            if number or part == "sample":
                rows = rows_of(steps[f"reflect-{number}-{part}"])
                spent = [total + len(row["completion_ids"]) for total, row in zip(spent, rows, strict=True)]
        if number == 0:
            continue
        rows = rows_of(steps[f"reflect-{number}" if number < ROUNDS else "reflect"])
        assert [row["spent"] for row in rows] == spent
        for index, row in enumerate(rows):
            thought, answer = split(row["completion"][0]["content"], BEGIN, END)
            assert float(answer) == float(thought) == 64 * RHO**number
            assert row["prompt"] == [{"role": "user", "content": f"say {index}"}]
            assert row["tag"] == index
        filled = rows_of(steps[f"reflect-{number}-sample"])[0]
        opened = tokens.apply_chat_template(filled["asked"], tokenize=False, add_generation_prompt=True)
        whole = f"{opened}{BEGIN}\n{64 * RHO**number}\n{END}\n"
        assert filled["prompt_ids"] == tokens(whole, add_special_tokens=False)["input_ids"]
    policies = json.loads((steps["evaluate"].output / "evaluation.json").read_text())["policies"]
    assert (
        policies["mended"]["spent"]["mean"] == pytest.approx(sum(spent) / 3) == metrics_of(steps["reflect"])["spent"]
    )
    assert "spent" not in policies["plain"]
    assert "mended: " in (steps["evaluate"].output / "summary.txt").read_text()


def test_an_evaluation_sets_a_policy_that_reflects_against_its_best_of_as_many_tokens(served, thinker, tmp_path):
    asked = [{"prompt": [{"role": "user", "content": f"say {number}"}]} for number in range(3)]
    keys = {key: served[key] for key in ("engine", "server", "generate")}
    evaluate = {
        "policies": {"plain": thinker},
        "reflect": {"plain": {"critic": served, "rounds": ROUNDS}},
        "prompts": write_rows(tmp_path / "prompts.jsonl", asked),
        "rewards": {"brief": {"kind": "answer_span", "rewards": {"brief": {"kind": "length", "target": 2}}}},
        "num_generations": 2,
        **keys,
    }
    steps = run_recipe(tmp_path, {"evaluate": evaluate})
    mended, best = (rows_of(steps[f"evaluate-plain-{name}"]) for name in ("reflect-score", "best-of-tokens"))
    for rows in (mended, best):
        assert [(row["prompt_index"], row["sample_index"]) for row in rows] == [
            (p, s) for p in range(3) for s in (0, 1)
        ]
    samples = rows_of(steps["evaluate-plain-more-sample"])
    assert len(samples) == 3 * 2 * (1 + 2 * ROUNDS)
    of_one = len(samples[0]["completion_ids"])  # all are alike
    for row, other in zip(best, mended, strict=True):
        assert row["spent"] % of_one == 0
        assert abs(row["spent"] - other["spent"]) <= of_one / 2
        assert float(split(other["completion"][0]["content"], BEGIN, END)[1]) == 64 * RHO**ROUNDS
    policies = json.loads((steps["evaluate"].output / "evaluation.json").read_text())["policies"]
    assert list(policies) == ["plain", "plain-reflect", "plain-best"]
    assert metrics_of(steps["evaluate-plain-best-of-tokens"])["short"] == 0


def test_of_samples_within_the_tokens_the_one_that_most_agree_with_or_that_is_liked_best_is_kept(tmp_path, capsys):
    def row(prompt, number, said, score, tokens):
        place = {"prompt_index": prompt, "sample_index": number, "completion_ids": [0] * tokens}
        return {"prompt": f"p{prompt}", "completion": said, **place, "scores": {"liked": score}}

    said = [("it is 7", 0.1, 4), ("it is 8", 0.9, 4), ("8", 0.5, 3), ("9", 2.0, 9)]
    samples = [row(prompt, number, *one) for prompt in (2, 1, 0) for number, one in enumerate(said)]
    spent = [{**row(prompt, 0, "x", 0.0, 1), "spent": tokens} for prompt, tokens in ((1, 90), (0, 12))]
    block = {
        "kind": "equal_tokens",
        "completions": write_rows(tmp_path / "samples.jsonl", samples),
        "budget": write_rows(tmp_path / "spent.jsonl", spent),
    }
    steps = run_recipe(tmp_path, {"voted": block, "liked": {**block, "reward": "liked"}})
    assert [(one["completion"], one["spent"]) for one in rows_of(steps["voted"])] == [("it is 8", 11), ("it is 8", 20)]
    assert [one["completion"] for one in rows_of(steps["liked"])] == ["it is 8", "9"]
    assert (metrics_of(steps["voted"])["samples"], metrics_of(steps["voted"])["short"]) == (3.5, 0.5)
    assert "no reward 'like' in the scores" in refused(tmp_path, {"liked": {**block, "reward": "like"}}, capsys)


@pytest.mark.parametrize(
    ("reflect", "message"),
    [
        ({"other": {}}, "stages.evaluate.reflect.other: is not one of the policies"),
        ({"plain": {"roundz": 1}}, "stages.evaluate.reflect.plain.roundz: unknown key"),
        ({"plain": {"rounds": 0}}, "stages.evaluate.reflect.plain.rounds: must be at least 1, got 0"),
    ],
)
def test_reflections_of_an_evaluation_that_cannot_be_are_refused(reflect, message, served, thinker, tmp_path, capsys):
    block = {
        "policies": {"plain": thinker},
        "reflect": {policy: {"critic": served, **keys} for policy, keys in reflect.items()},
        "prompts": write_rows(tmp_path / "prompts.jsonl", [{"prompt": "say"}]),
        "rewards": {"brief": {"kind": "length", "target": 2}},
    }
    assert message in refused(tmp_path, {"evaluate": block}, capsys)


@pytest.mark.parametrize(
    ("said", "thought", "answer"),
    [
        (f"{BEGIN}a{END}b", "a", "b"),
        (f"{BEGIN}a{END}b{BEGIN}c{END} d ", f"a{END}b{BEGIN}c", "d"),
        (f"a{END}b", "a", "b"),
        (f"x{BEGIN}a", "a", ""),
        ("b", "", "b"),
        ("", "", ""),
    ],
)
def test_thoughts_and_answers_are_told_apart(said, thought, answer):
    assert split(said, BEGIN, END) == (thought, answer)


def test_rewards_of_the_answer_do_not_see_the_thoughts():
    reward = AnswerSpan(rewards={"brief": Length(target=2, unit="characters")})
    said = [f"{BEGIN}a long thought{END}\nab", "ab", f"{BEGIN}ab"]
    assert reward(["p"] * 3, said)[:2] == [Length(target=2, unit="characters")(["p"], ["ab"])[0]] * 2
    chats = [[{"role": "assistant", "content": text}] for text in said]
    assert reward(["p"] * 3, chats) == reward(["p"] * 3, said)
    with pytest.raises(ValueError, match="rewards is empty"):
        AnswerSpan(rewards={})
    with pytest.raises(ValueError, match="two marks"):
        AnswerSpan(rewards={"brief": Length(target=2)}, marks=["a", "a"])
    with pytest.raises(ValueError, match="two marks"):
        AnswerSpan(rewards={"brief": Length(target=2)}, marks=["a", ""])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "stages.reflect.rounds: must be at least 1, got 0"),
        (
            {"asks": "{question}"},
            "stages.reflect.asks: takes {question} and {thoughts} and {answer}, and has {question}",
        ),
        ({"marks": ["x"]}, "stages.reflect.marks: expected two marks, of the beginning and of the end, got ['x']"),
    ],
)
def test_reflections_that_cannot_be_are_refused(change, message, served, prompts, tmp_path, capsys):
    block = {**served, "prompts": prompts, "critic": served}
    assert message in refused(tmp_path, {"reflect": {**block, **change}}, capsys)
