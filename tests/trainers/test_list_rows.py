"""Lists of answers: the rows that `pair` makes for `prefer`, and those that `prefer` refuses."""

import math

import pytest
import torch
import trl
from conftest import PAIR_ROWS
from datasets import Dataset
from outputs import rows_of
from run_steps import refused, run_recipe
from tiny_trainers import CPU, list_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture
def stranger(model, tmp_path):
    """Another model than the one that has sampled."""
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        policy.get_output_embeddings().weight *= 20
    policy.save_pretrained(tmp_path / "stranger")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "stranger")
    return str(tmp_path / "stranger")


def test_lists_carry_tokens_reference_and_probabilities_of_winning(lists):
    scored = {}
    for row in rows_of(lists["score"]):
        score = row["scores"]["as"] + 0.1 * row["scores"]["brief"]
        answers = scored.setdefault(row["prompt"][0]["content"], {})
        answers.setdefault(row["completion"][0]["content"], (row, score))
    rows = rows_of(lists["ranked"])
    assert len({len(row["completions"]) for row in rows}) > 1
    for row in rows:
        answers = scored[row["prompt"][0]["content"]]
        assert row["completion_scores"] == sorted(row["completion_scores"], reverse=True)
        assert len(row["completions"]) == len(row["completion_ids"]) == len(row["ref_logps"]) == len(row["win_probs"])
        for k, completion in enumerate(row["completions"]):
            source, score = answers[completion[0]["content"]]
            assert row["prompt_ids"] == source["prompt_ids"]
            assert row["completion_ids"][k] == source["completion_ids"]
            assert row["completion_scores"][k] == score
            assert row["ref_logps"][k] == pytest.approx(sum(source["logprobs"]), abs=1e-9)
            wins = [1 / (1 + math.exp(other - score)) for _, other in answers.values()]  # also over what was dropped
            assert row["win_probs"][k] == pytest.approx(sum(wins) / len(wins), abs=1e-9)


def test_a_cut_answer_is_learned_as_it_was_sampled_with_no_end_behind_it(model, lists, tmp_path):
    """trl's trainer, which reads text, puts an end token behind every answer that has none, and learns it."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    stop = tokenizer.eos_token_id
    cut = [row for row in rows_of(lists["ends"]) if stop not in row["completion_ids"][0]]
    assert cut
    batch = list_trainer(model, cut, tmp_path).data_collator(cut)
    for row, ids, learned in zip(cut, batch["input_ids"], batch["learned"], strict=True):
        assert ids[0][learned[0]].tolist() == row["completion_ids"][0]
    said = [{"prompt": "say", "chosen": " a b", "rejected": f" b{tokenizer.eos_token}"}]
    args = trl.DPOConfig(str(tmp_path), **CPU)
    theirs = trl.DPOTrainer(model=model, args=args, train_dataset=Dataset.from_list(said)).train_dataset[0]
    assert theirs["chosen_ids"] == [*tokenizer(" a b", add_special_tokens=False)["input_ids"], stop]
    assert theirs["rejected_ids"] == [*tokenizer(" b", add_special_tokens=False)["input_ids"], stop]


def test_ends_are_the_first_and_the_last_of_the_ranked(lists):
    ranked = {row["prompt"][0]["content"]: row for row in rows_of(lists["ranked"])}
    ends, pairs = rows_of(lists["ends"]), rows_of(lists["pairs"])
    assert len(ends) == len(pairs) == len(ranked)
    for row, pair in zip(ends, pairs, strict=True):
        whole = ranked[row["prompt"][0]["content"]]
        for key in ("completion_scores", "win_probs"):  # of several worst answers, either may stand there
            assert row[key] == pytest.approx([whole[key][0], whole[key][-1]])
        assert row["completions"] == [pair["chosen"], pair["rejected"]]
        assert set(pair) == {"prompt", "chosen", "rejected", "chosen_score", "rejected_score"}


def test_scale_of_the_scores_makes_winning_surer(lists, tmp_path, capsys):
    for row, scaled in zip(rows_of(lists["ranked"]), rows_of(lists["scaled"]), strict=True):
        assert scaled["win_probs"][0] > row["win_probs"][0]
        assert scaled["win_probs"][-1] < row["win_probs"][-1]
    pair = {"completions": str(lists["score"].output), "reward": "as", "score_scale": 0}
    assert "score_scale: must be above 0, got 0.0" in refused(tmp_path, {"pair": pair}, capsys)


def test_lists_of_completions_without_tokens_are_for_the_reward_model_only(tmp_path, write):
    rows = [{"prompt": "p", "completion": "a" * k, "prompt_index": 0, "scores": {"as": k}} for k in range(1, 4)]
    pair = {"completions": write("scored.jsonl", rows), "reward": "as", "select": "ends"}
    (row,) = rows_of(run_recipe(tmp_path, {"pair": pair})["pair"])
    assert row["completions"] == ["aaa", "a"]
    assert set(row) == {"prompt", "completions", "completion_scores", "win_probs"}


@pytest.mark.parametrize("loss", ["sppo", "orpo"])
def test_a_reference_that_is_not_the_model_is_refused_where_it_is_used(loss, block, stranger, tmp_path, capsys):
    block |= {"model": {"model_name_or_path": stranger}, "loss": loss}
    if loss == "orpo":
        assert run_recipe(tmp_path, {"prefer": block})["prefer"].done
        return
    error = refused(tmp_path, {"prefer": block}, capsys)
    assert (
        "stages.prefer.data: the reference is another model than the sampler: in row 0, ref_logps of answer" in error
    )
    assert f"{stranger} gives" in error
    assert "Set `model` to the model that `sample` used" in error


def test_rows_without_the_columns_are_refused_with_the_way_to_make_them(block, lists, tmp_path, write, capsys):
    error = refused(tmp_path, {"prefer": {**block, "data": write("pairs.jsonl", PAIR_ROWS)}}, capsys)
    assert "stages.prefer.data: " in error
    assert "has no column 'prompt_ids', 'completion_ids', 'ref_logps' (it has: prompt, chosen, rejected)" in error
    assert "`pair: {select: ends}` or `{select: ranked}` makes it" in error
    rows = [{key: value for key, value in row.items() if key != "win_probs"} for row in rows_of(lists["ends"])]
    error = refused(tmp_path, {"prefer": {**block, "loss": "sppo", "data": write("few.jsonl", rows)}}, capsys)
    assert "has no column 'win_probs'" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ref_logps": [-1.0]}, "row 1: 'ref_logps' is not a list of 2 numbers, one for each of 'completion_ids'"),
        ({"ref_logps": [-1.0, 0.5]}, "row 1: 'ref_logps' has a value above 0"),
        ({"win_probs": [1.2, 0.2]}, "row 1: 'win_probs' has a value that is no probability"),
        ({"win_probs": [float("nan"), 0.2]}, "row 1: 'ref_logps' or 'win_probs' has a value that is not finite"),
        ({"completion_ids": [[1], []]}, "row 1: needs a prompt and two answers or more, of one token or more each"),
        ({"prompt_ids": []}, "row 1: needs a prompt and two answers or more"),
    ],
)
def test_rows_with_wrong_values_are_refused(change, message, block, lists, tmp_path, write, capsys):
    rows = rows_of(lists["ends"])
    rows[1] |= change
    data = write("wrong.jsonl", rows)
    assert message in refused(tmp_path, {"prefer": {**block, "loss": "sppo", "data": data}}, capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0}, "stages.prefer.beta: must be above 0, got 0.0"),
        ({"epsilon": 0.5}, "stages.prefer.epsilon: must be between 0 and 0.5, got 0.5"),
        ({"loss": "kto"}, "expected one of dpo, exo, ipo, orpo, plackett_luce, rrhf, sppo"),
        ({"train": {"packing": True}}, "stages.prefer.train.packing: has no meaning for lists of answers"),
        ({"train": {"eval_strategy": "epoch"}}, "eval_strategy needs `eval_data`"),
    ],
)
def test_options_that_cannot_be_right(change, message, block, tmp_path, capsys):
    assert message in refused(tmp_path, {"prefer": {**block, **change}}, capsys)
