"""Prompts are looked at before they are sampled: empty ones, and those beyond a context."""

import json

import pytest
from outputs import rows_of
from run_steps import refused, run_recipe
from short_trainings import LOOP_TRAIN, apo, plan
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

CONTEXT = 1024
LONG = "say " + "a b " * 400  # fits with 100 tokens of an answer, and not with 1000


def ask(text):
    return {"prompt": [{"role": "user", "content": text}]}


@pytest.fixture
def sample(model, write):
    """A stage that samples such prompts."""

    def sample(rows, **options):
        block = {"model": {"model_name_or_path": model}, "prompts": write("prompts.jsonl", rows)}
        return {"sample": {**block, "num_generations": 1, "generate": {"max_new_tokens": 4}, **options}}

    return sample


@pytest.fixture(scope="session")
def reader(model, tmp_path_factory):
    """A reward model of the same vocabulary that reads 30 tokens."""
    folder = tmp_path_factory.mktemp("reader")
    scorer = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    scorer.config.max_position_embeddings = 30
    scorer.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("row", [{"prompt": ""}, {"prompt": " \n"}])
def test_an_empty_prompt_is_refused_with_its_row(sample, tmp_path, capsys, row):
    said = refused(tmp_path, sample([{"prompt": "say a"}, row]), capsys)
    assert "stages.sample.prompts: " in said
    assert "prompts.jsonl, row 1: the prompt is empty, or white space alone, as in 1 of 2 rows" in said


def test_an_empty_question_is_an_empty_prompt(sample, tmp_path, capsys):
    assert "row 1: the prompt is empty" in refused(tmp_path, sample([ask("say a"), ask(" ")]), capsys)


def test_a_prompt_without_any_token_is_never_sampled(sample, tmp_path, capsys):
    stages = sample([{"prompt": "say a"}, {"prompt": ""}], audit={"empty_prompt": "warn"})
    assert "row 1: the prompt is empty, and the tokenizer puts nothing before it" in refused(tmp_path, stages, capsys)


def test_prompts_beyond_the_context_are_refused_or_dropped_and_counted(model, sample, tmp_path, capsys):
    assert AutoConfig.from_pretrained(model).max_position_embeddings == CONTEXT
    rows = [ask(LONG), ask("say a"), ask("say b")]
    assert len(rows_of(run_recipe(tmp_path, sample(rows))["sample"])) == 3  # with 4 new tokens all fit
    long = {"generate": {"max_new_tokens": 1000}}
    said = refused(tmp_path, sample(rows, **long), capsys)
    assert "row 0: the prompt has " in said
    assert f"tokens and its answer up to 1000, and the context of {model} is {CONTEXT}, as in 1 of 3 rows" in said
    step = run_recipe(tmp_path, sample(rows, **long, audit={"beyond_context": "drop"}))["sample"]
    assert {row["prompt"][0]["content"] for row in rows_of(step)} == {"say a", "say b"}
    logged = [json.loads(line) for line in (step.dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["prompts/dropped/beyond_context"] for line in logged if "prompts/rows" in line] == [1]


def test_a_loop_hands_the_key_to_what_samples(model, write, tmp_path, capsys):
    rows = write("prompts.jsonl", [ask(LONG), *(ask(f"say {i}") for i in range(3))])
    long = apo(model, rows, rounds=1, generate={"max_new_tokens": 1000})
    assert "apo" in refused(tmp_path, long, capsys)
    long["apo"]["audit"] = {"beyond_context": "drop"}
    sampled = next(step for step in plan(tmp_path, long).values() if step.kind == "sample")
    assert sampled.options["audit"] == {"beyond_context": "drop"}


def test_prompts_beyond_a_reward_models_context_are_found_before_training_on_it(
    model, reader, write, tmp_path, capsys
):
    rewards = {"mixed": {"kind": "composite", "rewards": {"helpful": {"kind": "reward_model", "path": reader}}}}
    train = {**LOOP_TRAIN, "num_generations": 2, "max_completion_length": 8}
    data = write("prompts.jsonl", [ask("say a"), ask("say " + "a b " * 12)])
    block = {"kind": "constrained", "model": {"model_name_or_path": model}, "data": data, "method": "fixed",
             "rewards": rewards, "train": train}  # fmt: skip
    said = refused(tmp_path, {"constrained": block}, capsys)
    assert "stages.constrained.data: " in said
    assert "row 1: the prompt has " in said
    assert "and its answer up to 8, and the context of the reward mixed is 30" in said
