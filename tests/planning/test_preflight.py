"""Mistakes in a recipe or its data: one readable message, exit code 2, nothing written, nothing launched."""

import copy

import pytest
from conftest import PAIR_ROWS, PROMPT, SFT_ROWS
from run_steps import write_recipe

from trimtab.pipelines.running import launch
from trimtab.scripts import run


def say(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def recipe(tmp_path, write, model):
    """A correct recipe; the tests break one thing each."""
    return {
        "sft": {
            "model": {"model_name_or_path": model},
            "data": write("sft.jsonl", SFT_ROWS),
            "train": {"max_length": 64},
        },
        "dpo": {"model": {"model_name_or_path": "$sft"}, "data": write("pairs.jsonl", PAIR_ROWS), "train": {}},
    }


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Runs the recipe, expects exit code 2 before any launch, and returns the message."""

    def refused(stages, *overrides):
        monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("launched"))
        code = run.main([str(write_recipe(tmp_path, stages)), *overrides])
        error = capsys.readouterr().err.strip()
        assert code == 2, error
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1, error
        assert not (tmp_path / "runs").exists()
        return error

    return refused


def test_the_recipe_without_mistakes_passes(recipe, tmp_path, capsys):
    assert run.main([str(write_recipe(tmp_path, recipe)), "--plan"]) == 0
    assert "2 steps, 0 done, 2 pending" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_unknown_key_with_its_line_and_a_suggestion(recipe, refused, tmp_path):
    recipe["dpo"]["train"]["learing_rate"] = 1.0
    error = refused(recipe)
    assert "stages.dpo.train.learing_rate: unknown key for DPOConfig, did you mean 'learning_rate'?" in error
    lines = (tmp_path / "recipe.yaml").read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(lines) if "learing_rate" in text)
    assert f"recipe.yaml:{line}: " in error


def test_unknown_key_of_a_stage(recipe, refused):
    recipe["dpo"]["dat"] = "x"
    assert "stages.dpo.dat: unknown key for kind 'dpo', did you mean 'data'?" in refused(recipe)


def test_wrong_type(recipe, refused):
    error = refused(recipe, "stages.dpo.train.learning_rate=[1, 2]")
    assert "stages.dpo.train.learning_rate: expected a number, got [1, 2]" in error
    assert error.startswith("error: override stages.dpo.train.learning_rate=[1, 2]: ")


def test_a_string_that_is_no_number(recipe, refused):
    recipe["dpo"]["train"]["learning_rate"] = "fast"
    assert "stages.dpo.train.learning_rate: expected a number, got 'fast'" in refused(recipe)


def test_a_number_written_as_a_string_is_read(recipe, tmp_path):
    recipe["dpo"]["train"] |= {"learning_rate": "5e-7", "loss_type": "ipo"}
    assert run.main([str(write_recipe(tmp_path, recipe)), "--plan"]) == 0


def test_missing_file(recipe, refused, tmp_path):
    recipe["dpo"]["data"] = str(tmp_path / "pair.jsonl")
    error = refused(recipe)
    assert "stages.dpo.data: no such file" in error
    assert "did you mean 'pairs.jsonl'?" in error


def test_missing_model(recipe, refused):
    recipe["sft"]["model"]["model_name_or_path"] = "./no/model"
    assert "stages.sft.model.model_name_or_path: no such model: ./no/model" in refused(recipe)


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
    rows[2]["completion"][0]["role"] = "user"
    recipe["sft"]["data"] = write("sft.jsonl", rows)
    assert "sft.jsonl, row 2: 'completion' ends with a message of role 'user'" in refused(recipe)


def test_empty_tokens(recipe, refused, write):
    recipe["sft"]["data"] = write("sft.jsonl", [{"input_ids": [], "labels": []}] * 4)
    assert "sft.jsonl, row 0: no tokens at all, as in 4 of 4 answers" in refused(recipe)


def test_all_masked_because_the_prompt_fills_max_length(recipe, refused):
    recipe["sft"]["train"]["max_length"] = 3
    error = refused(recipe)
    assert "sft.jsonl, row 0: nothing to learn, as in 12 of 12 answers" in error
    assert "max_length (3)" in error


def test_chosen_equal_to_rejected(recipe, refused, write):
    rows = [{**row, "rejected": row["chosen"]} if i % 3 == 1 else row for i, row in enumerate(PAIR_ROWS)]
    recipe["dpo"]["data"] = write("pairs.jsonl", rows)
    assert "pairs.jsonl, row 1: chosen equals rejected, as in 4 of the first 12 rows" in refused(recipe)


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


def test_reference_to_a_stage_below(recipe, refused):
    recipe["sft"]["model"]["model_name_or_path"] = "$dpo"
    assert "stages.sft.model.model_name_or_path: '$dpo' is below (line " in refused(recipe)


def test_keys_that_upstream_renamed_name_their_successor(recipe, refused):
    recipe["sft"]["model"]["torch_dtype"] = "bfloat16"
    assert "stages.sft.model.torch_dtype: unknown key for ModelConfig: use 'dtype'" in refused(recipe)


def test_keys_of_the_pipeline_and_secrets_are_not_the_recipes(recipe, refused):
    recipe["sft"]["train"]["output_dir"] = "x"
    assert "stages.sft.train.output_dir: not a key of a recipe" in refused(recipe)
    del recipe["sft"]["train"]["output_dir"]
    assert "secrets do not belong in a recipe" in refused(recipe, "stages.sft.train.hub_token=abc")


def test_unknown_reward_and_its_options(recipe, refused):
    recipe["score"] = {"completions": "$sft", "rewards": {"brief": {"kind": "lenght", "target": 3}}}
    assert "stages.score.rewards.brief.kind: unknown kind 'lenght', did you mean 'length'?" in refused(recipe)
    recipe["score"]["rewards"]["brief"] = {"kind": "length", "targt": 3}
    assert "stages.score.rewards.brief.targt: unknown key for Length, did you mean 'target'?" in refused(recipe)


def test_unknown_accelerate_config(recipe, refused):
    recipe["sft"]["accelerate"] = "dpp"
    assert "stages.sft.accelerate: no accelerate config 'dpp', did you mean 'ddp'?" in refused(recipe)


def test_one_checkpoint_is_not_enough(recipe, refused):
    recipe["sft"]["train"]["save_total_limit"] = 1
    assert "stages.sft.train.save_total_limit: 1 leaves nothing to resume from" in refused(recipe)


def test_a_step_that_needs_one_that_is_not_done(recipe, refused):
    assert "dpo needs sft, which is not done: run sft first" in refused(recipe, "--only", "dpo")


def test_a_step_below_one_that_is_done_is_checked_with_its_real_output(recipe, tmp_path, refused):
    """The tokenizer of a finished `sft` is what `dpo`'s data is audited with."""
    stages = {"dpo": {**recipe["dpo"], "model": recipe["sft"]["model"], "train": {"max_length": 2}}}
    assert "pairs.jsonl, row 0: nothing to learn" in refused(stages)
