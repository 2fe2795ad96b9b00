"""The audit refuses rows and tokens that would waste a training, and names the row."""

import copy

import pytest
from conftest import PAIR_ROWS, PROMPT, SFT_ROWS
from planned import on_rows
from run_steps import run_recipe, write_recipe

from trimtab.pipelines.planning import preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe


def say(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def recipe(write, model):
    """A correct recipe; the tests break one thing each."""
    return on_rows(write, model)


@pytest.fixture
def refused(tmp_path):
    """Checks the recipe, expects a mistake, and returns the message."""

    def refused(stages):
        recipe = Recipe.load(str(write_recipe(tmp_path, stages, wandb=False)))
        with pytest.raises(RecipeError) as raised:
            preflight.check(recipe, recipe.steps)
        return str(raised.value)

    return refused


def test_missing_file(recipe, refused, tmp_path):
    recipe["dpo"]["data"] = str(tmp_path / "pair.jsonl")
    error = refused(recipe)
    assert "stages.dpo.data: no such file" in error
    assert "did you mean 'pairs.jsonl'?" in error


def test_misnamed_column(recipe, refused, write):
    rows = [{"prompt": r["prompt"], "chosen": r["chosen"], "rejcted": r["rejected"]} for r in PAIR_ROWS]
    recipe["dpo"]["data"] = write("pairs.jsonl", rows)
    error = refused(recipe)
    assert "stages.dpo.data: " in error
    assert "pairs.jsonl has no column 'rejected', did you mean 'rejcted'?" in error


def test_null_cell_with_its_row(recipe, refused, write):
    rows = copy.deepcopy(PAIR_ROWS)
    rows[3]["rejected"] = None
    recipe["dpo"]["data"] = write("pairs.jsonl", rows)
    assert "pairs.jsonl, row 3: column 'rejected' is null" in refused(recipe)
    rows[3]["rejected"], rows[5]["prompt"] = rows[2]["rejected"], None
    recipe["dpo"]["data"] = write("pairs.jsonl", rows)
    assert "pairs.jsonl, row 5: column 'prompt' is null" in refused(recipe)


def test_answer_of_the_wrong_role(recipe, refused, write):
    rows = copy.deepcopy(SFT_ROWS)
    for row in rows[2:]:
        row["completion"][0]["role"] = "user"
    recipe["sft"]["data"] = write("sft.jsonl", rows)
    assert "sft.jsonl, row 2: 'completion' ends with a message of role 'user'" in refused(recipe)


def test_empty_tokens(recipe, refused, write):
    recipe["sft"]["data"] = write("sft.jsonl", [{"input_ids": [], "labels": []}] * 4)
    assert "sft.jsonl, row 0: no tokens at all: " in refused(recipe)


def test_all_masked_because_the_prompt_fills_max_length(recipe, refused):
    recipe["sft"]["train"]["max_length"] = 3
    error = refused(recipe)
    assert "sft.jsonl, row 0: nothing to learn: " in error
    assert "as in 12 of 12 rows" in error
    assert "max_length (3)" in error


def test_chosen_equal_to_rejected(recipe, refused, write):
    rows = [{**row, "rejected": row["chosen"]} if i % 3 == 1 else row for i, row in enumerate(PAIR_ROWS)]
    recipe["dpo"]["data"] = write("pairs.jsonl", rows)
    assert "pairs.jsonl, row 1: chosen equals rejected, as in 4 of 12 rows" in refused(recipe)


def test_end_of_sequence_masked_because_it_is_the_padding_token(recipe, refused, write, model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer.apply_chat_template(PROMPT + say("a b"), return_dict=True)["input_ids"]
    labels = [-100 if token == tokenizer.eos_token_id else token for token in ids]  # "mask the padding"
    recipe["sft"]["data"] = write("sft.jsonl", [{"input_ids": ids, "labels": labels}] * 4)
    recipe["sft"]["train"]["pad_token"] = tokenizer.eos_token
    error = refused(recipe)
    assert "the end-of-sequence token '<|end|>' is masked out of the loss, and it is also the padding token" in error


def test_template_that_never_ends_a_turn(recipe, refused):
    recipe["sft"]["train"]["eos_token"] = "<|system|>"
    assert "no answer ends with the tokenizer's end-of-sequence token '<|system|>'" in refused(recipe)


def test_two_beginnings_of_a_sequence(recipe, refused, write, model, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.bos_token = "<|system|>"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    begin, a = tokenizer.bos_token_id, tokenizer("a")["input_ids"]
    recipe["sft"]["model"]["model_name_or_path"] = str(tmp_path / "tokenizer")
    recipe["sft"]["data"] = write("sft.jsonl", [{"input_ids": [begin, begin, *a]}] * 4)
    assert "sft.jsonl, row 0: two beginning-of-sequence tokens '<|system|>'" in refused(recipe)


def test_an_end_that_is_only_masked_is_to_be_unmasked(recipe, refused, write, model):
    from transformers import AutoTokenizer

    end = AutoTokenizer.from_pretrained(model).eos_token_id
    recipe["sft"]["data"] = write("sft.jsonl", [{"input_ids": [30, 31, end], "labels": [30, 31, -100]}] * 4)
    error = refused(recipe)
    assert "the end-of-sequence token '<|end|>' is masked out of the loss: unmask it in the labels" in error


def test_what_a_step_above_has_still_to_make_is_looked_at_once_it_is_done(recipe, refused, tmp_path):
    """The tokenizer of a finished `sft` is what `dpo`'s data is audited with."""
    recipe["sft"]["train"] = {"max_steps": 1, "gradient_checkpointing": False}
    recipe["dpo"]["train"]["max_length"] = 2
    planned = Recipe.load(str(write_recipe(tmp_path, recipe, wandb=False)))
    assert preflight.check(planned, planned.steps) == []
    run_recipe(tmp_path, {"sft": recipe["sft"]})
    assert (
        "pairs.jsonl, row 0: nothing to learn: the answer is masked or beyond max_length (2), as in 12 of 12 rows"
        in refused(recipe)
    )
