"""PRefLexOR's loop with a scripted teacher behind a server: what is asked, found, chosen, rejected and learned."""

import re

import pytest
from constrained_runs import logged
from outputs import metrics_of, rows_of
from reward_servers import sampled_at
from run_steps import refused, run_recipe
from short_trainings import TRAIN, plan, say, write_rows
from transformers import AutoTokenizer

BEGIN, END = "<|thinking|>", "<|/thinking|>"
CORPUS = [{"text": f"Stone {name} weighs {number} pounds."} for number, name in enumerate("abcdefgh")]


@pytest.fixture
def teacher(thinker, monkeypatch):
    """A server whose answers are a function of what it is asked, and the block that names it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def answer(asked):
        stone, pounds = re.search(r"Stone (\w) weighs (\d) pounds", asked).groups()
        if "Write one question" in asked:
            return f"What weighs {stone}?"
        return f"{BEGIN} Look for {stone}." if "the steps" in asked else f"{pounds} pounds"

    with sampled_at(thinker, answer, tokens=60) as block:
        yield block


@pytest.fixture
def block(thinker, teacher, tmp_path):
    return {
        "model": {"model_name_or_path": thinker},
        "corpus": write_rows(tmp_path / "corpus.jsonl", CORPUS),
        "teacher": teacher,
        "rounds": 2,
        "questions": 4,
        "passages": 1,
        "parts": {"Reasoning": "List the steps."},
        "generate": {"max_new_tokens": 6},
        "prefer": {"loss": "exo", "epsilon": 0.005, "mask": {"before": END}},
        "train": TRAIN,
    }


def test_each_round_asks_about_other_passages_and_rejects_what_the_student_says_now(block, thinker, tmp_path):
    steps = run_recipe(tmp_path, {"preflexor": block})
    shown = [rows_of(steps[f"preflexor-{number}-chunks"]) for number in (1, 2)]
    assert sorted(row["passages"][0] for rows in shown for row in rows) == list(range(8))
    for number in (1, 2):
        of = f"preflexor-{number}"
        studied = rows_of(steps[f"{of}-study"])
        assert [row["part"] for row in studied] == ["Reasoning", ""] * 4
        assert all(len(re.findall("Stone", row["prompt"][0]["content"])) == 2 for row in studied)  # shown and found
        rows = rows_of(steps[f"{of}-pairs"])
        sampled = rows_of(steps[f"{of}-sample"])
        assert [row["rejected"] for row in rows] == [row["completion"] for row in sampled]
        for row in rows:
            stone = re.fullmatch(r"What weighs (\w)\? Use <\|thinking\|>\.", row["prompt"][0]["content"])[1]
            pounds = "abcdefgh".index(stone)
            thought = f"{BEGIN}\nReasoning: Look for {stone}.\n{END}\n{pounds} pounds"
            assert row["chosen"][0]["content"] == thought
            tokens = AutoTokenizer.from_pretrained(thinker)
            assert tokens.decode(row["completion_ids"][0]) == thought + tokens.eos_token
        student = steps[of if number == 1 else "preflexor"]
        first = logged(student)[0]
        assert first["train/margins"] == pytest.approx(0, abs=1e-4)  # against the student as it was
        assert metrics_of(student)["mask/train/answers_unmarked"] >= 1
    models = [steps[f"preflexor-{number}-sample"].options["model"]["model_name_or_path"] for number in (1, 2)]
    assert models == [thinker, str(steps["preflexor-1"].output)]
    assert steps["preflexor"].options["model"]["model_name_or_path"] == models[1]


def test_the_control_has_the_same_questions_and_no_thoughts(block, tmp_path):
    control = {**block, "think": False, "rounds": 1, "prefer": {"loss": "orpo"}}
    whole = plan(tmp_path, {"preflexor": {**block, "rounds": 1}})
    steps = run_recipe(tmp_path, {"preflexor": control})
    assert steps["preflexor-1-questions"].fingerprint == whole["preflexor-1-questions"].fingerprint
    for row in rows_of(steps["preflexor-1-pairs"]):
        assert re.fullmatch(r"What weighs \w\?", row["prompt"][0]["content"])
        assert re.fullmatch(r"\d pounds", row["chosen"][0]["content"])


def test_answers_that_are_accepted_are_not_rejected(block, tmp_path, capsys):
    everything = {"verify": {"right": {"kind": "pattern", "regex": "(?s).*"}}, "accept": {"right": 1}, "rounds": 1}
    told = refused(tmp_path, {"preflexor": {**block, **everything}}, capsys)
    assert "leaves no rows" in told
    nothing = {**everything, "accept": {"right": 2}}
    steps = run_recipe(tmp_path, {"preflexor": {**block, **nothing}})
    assert metrics_of(steps["preflexor-1-pairs"])["rows"] == 4


def part(question, name, said, *, truncated=False):
    completion = [{"role": "assistant", "content": said}]
    about = {"question": f"q{question}", "question_index": question, "part": name, "truncated": truncated}
    return {"prompt": "p", "completion": completion, **about}


def test_thoughts_that_were_cut_are_left_out(tmp_path, capsys):
    rows = [
        *(part(0, "A", "one"), part(0, "B", "two", truncated=True), part(0, "", f"three{END}")),
        *(part(1, "A", "one"), part(1, "", "four", truncated=True)),
        *(part(2, "A", ""), part(2, "", "five")),
    ]
    data = write_rows(tmp_path / "parts.jsonl", rows)
    step = run_recipe(tmp_path, {"thoughts": {"parts": data}})["thoughts"]
    assert [row["chosen"][0]["content"] for row in rows_of(step)] == [
        f"{BEGIN}\nA: one\n{END}\nthree",
        f"{BEGIN}\n\n{END}\nfive",
    ]
    assert [row["solution"] for row in rows_of(step)] == ["three", "five"]
    metrics = metrics_of(step)
    assert (metrics["answers_dropped"], metrics["parts_dropped"]) == (1, 2)
    same = {"parts": data, "marks": ["x", "x"]}
    assert "stages.thoughts.marks: expected two marks" in refused(tmp_path, {"thoughts": same}, capsys)


def test_an_answer_that_says_what_is_chosen_makes_no_pair(thinker, tmp_path, write):
    prompts = write("prompts.jsonl", say(3))
    sampled = run_recipe(
        tmp_path,
        {"sample": {"model": {"model_name_or_path": thinker}, "prompts": prompts, "num_generations": 1,
                    "generate": {"max_new_tokens": 5}}},
    )["sample"]  # fmt: skip
    rows = [{**row, "chosen": row["completion"]} for row in rows_of(sampled)]
    rows[1]["chosen"] = [{"role": "assistant", "content": "better"}]
    block = {"completions": write("rows.jsonl", rows), "model": {"model_name_or_path": thinker}}
    (tmp_path / "pairs").mkdir()
    step = run_recipe(tmp_path / "pairs", {"contrast": block})["contrast"]
    assert metrics_of(step)["equal_dropped"] == 2
    (row,) = rows_of(step)
    assert row["chosen"] == rows[1]["chosen"]
    assert row["completion_ids"][1] == rows[1]["completion_ids"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "stages.preflexor.rounds: must be at least 1, got 0"),
        ({"num_generations": 2}, "stages.preflexor.num_generations: must be 1"),
        ({"accept": {"right": 1}}, "stages.preflexor.verify: `verify` names rewards and `accept`"),
        ({"overlap": 200}, "stages.preflexor.overlap: must be below `words` (200), got 200"),
        ({"passages": -1}, "stages.preflexor.passages: must be at least 0, got -1"),
        ({"parts": {"": "x"}}, "stages.preflexor.parts: a part needs a name"),
        ({"model": {"dtype": "float32"}}, "stages.preflexor.model.model_name_or_path: required key is missing"),
    ],
)
def test_loops_that_cannot_be_are_refused(change, message, block, tmp_path, capsys):
    assert message in refused(tmp_path, {"preflexor": {**block, **change}}, capsys)
