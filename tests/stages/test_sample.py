"""Samples: tokens with their log-probabilities, the same on any number of ranks and for any reward."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from outputs import rows_of
from run_steps import refused, write_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.pipelines.data.writing import write_rows
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import launch, making, runner
from trimtab.pipelines.sampling import settings, shards


def test_sample_keeps_tokens_and_their_log_probabilities(chained, model):
    rows = rows_of(chained["sample"])
    assert [(row["prompt_index"], row["sample_index"]) for row in rows] == [(i, k) for i in range(7) for k in range(3)]
    assert [row["tag"] for row in rows] == [i for i in range(7) for _ in range(3)]  # columns travel along
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    for row in rows:
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
        with torch.no_grad():
            logprobs = policy(input_ids=ids).logits.log_softmax(-1)
        start = len(row["prompt_ids"])
        expected = [logprobs[0, start + n - 1, token].item() for n, token in enumerate(row["completion_ids"])]
        assert row["logprobs"] == pytest.approx(expected, abs=1e-4)
        assert row["truncated"] == (row["completion_ids"][-1] != tokenizer.eos_token_id)
        assert row["completion"][0]["content"] == tokenizer.decode(row["completion_ids"], skip_special_tokens=True)
    assert len({row["completion"][0]["content"] for row in rows}) > 5


def test_samples_do_not_depend_on_the_number_of_ranks(chained, tmp_path, monkeypatch):
    """Two ranks, one after the other in this process, make the parts that one rank makes."""
    alone = chained["sample"]
    monkeypatch.setattr(settings, "PARTS", 100)
    step = replace(alone, dir=tmp_path, output=tmp_path / "output")
    step.output.mkdir()
    for rank in (0, 1):
        monkeypatch.setattr(
            shards,
            "PartialState",
            lambda rank=rank: SimpleNamespace(
                num_processes=2, process_index=rank, is_main_process=True, wait_for_everyone=lambda: None
            ),
        )
        # rank 0 by itself cannot collect what rank 1 has not made yet
        with pytest.raises(FileNotFoundError) if rank == 0 else nullcontext():
            making.build(step).run(step)
    assert rows_of(step) == rows_of(alone)
    assert list((tmp_path / "parts").iterdir())  # another rank may still read them, and a killed step needs them
    assert not (alone.dir / "parts").exists()  # done


def test_a_new_reward_leaves_the_samples_alone(chained):
    path = chained["sample"].dir.parents[2] / "recipe.yaml"
    steps = Recipe.load(str(path), ["stages.score.rewards.brief.target=5"]).steps
    assert [step.name for step in steps if not step.done] == ["score", "pair", "all", "ranked", "report"]


@pytest.fixture
def few(write):
    return write("few.jsonl", [{"prompt": "say a"}, {"prompt": "say b"}])


def test_a_loop_with_more_rounds_than_prompts_is_refused_in_the_plan(few, model, tmp_path, capsys):
    loops = {"apo": {}, "self_consuming": {"split_prompts": True, "real_fraction": 0}}
    for kind, more in loops.items():
        rewards = {"brief": {"kind": "length", "target": 3}}
        block = {"model": {"model_name_or_path": model}, "prompts": few, "rewards": rewards, "rounds": 3, **more}
        assert launch.plan(str(write_recipe(tmp_path, {kind: block}, wandb=False))) == 2
        said = capsys.readouterr().err
        assert f"stages.{kind}.prompts: 2 prompts cannot be split into 3 folds" in said
        assert "`split_prompts: false`" in said


def test_folds_of_prompts_from_a_step_above_are_counted_when_they_are_there(few, model, tmp_path, capsys):
    sample = {"model": {"model_name_or_path": model}, "num_generations": 1, "generate": {"max_new_tokens": 2}}
    stages = {
        "first": {"kind": "sample", **sample, "prompts": few},
        "second": {"kind": "sample", **sample, "prompts": "$first", "fold": [1, 5]},
    }
    assert runner.train(str(write_recipe(tmp_path, stages, wandb=False))) == 2
    assert "stages.second.prompts: 2 prompts cannot be split into 5 folds" in capsys.readouterr().err


def test_a_step_that_is_left_with_nothing_says_so_itself(few, model, tmp_path):
    (step,) = Recipe.load(str(write_recipe(tmp_path, {"sample": {"model": {"model_name_or_path": model},
                                                                 "prompts": few}}))).steps  # fmt: skip
    with pytest.raises(RecipeError, match=r"stages\.sample: sample leaves no rows"):
        write_rows(step, [])


def test_an_empty_file_has_no_rows(write, model, tmp_path, capsys):
    block = {"model": {"model_name_or_path": model}, "prompts": write("empty.jsonl", "")}
    assert "empty.jsonl has no rows" in refused(tmp_path, {"sample": block}, capsys)


def test_a_preference_needs_two_completions(few, model, tmp_path, capsys):
    rewards = {"brief": {"kind": "length", "target": 3}}
    block = {"model": {"model_name_or_path": model}, "prompts": few, "rewards": rewards}
    said = refused(tmp_path, {"apo": {**block, "num_generations": 1}}, capsys)
    assert "stages.apo.num_generations: a preference needs two completions of a prompt, got 1" in said
