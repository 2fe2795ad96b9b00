"""Each stage for a few steps, in this process: what it leaves behind, and facts that are true of the method."""

import json
import math
import statistics
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from conftest import PAIR_ROWS, SFT_ROWS
from run_steps import run_recipe
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trimtab.pipelines.planning import files, preflight
from trimtab.pipelines.recording import artifacts, tracking
from trimtab.pipelines.sampling import shards

TRAIN = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1,
         "gradient_checkpointing": False}  # fmt: skip
LORA = {"use_peft": True, "lora_r": 2, "lora_target_modules": "all-linear"}


@pytest.fixture
def sft(model, write):
    return {
        "kind": "sft",
        "model": {"model_name_or_path": model},
        "data": write("sft.jsonl", SFT_ROWS),
        "train": TRAIN,
    }


@pytest.fixture
def pairs(model, write):
    data = write("pairs.jsonl", PAIR_ROWS)
    return {"model": {"model_name_or_path": model}, "data": data, "eval_data": data, "train": TRAIN}


def logits(folder, auto=AutoModelForCausalLM):
    ids = torch.arange(12)[None] + 20
    with torch.no_grad():
        return auto.from_pretrained(folder, dtype=torch.float32).eval()(input_ids=ids).logits


def test_sft_leaves_a_complete_model_a_record_and_its_metrics(sft, tmp_path, model):
    step = run_recipe(tmp_path, {"sft": sft})["sft"]
    assert not torch.equal(logits(step.output), logits(model))
    assert AutoTokenizer.from_pretrained(step.output).chat_template
    assert not list(step.output.rglob("*.bin"))  # no pickle
    done = artifacts.read_done(step.dir)
    assert done["metrics"]["train/steps"] == 2
    assert done["world_size"] == 1
    assert done["files"]["model.safetensors"]["sha256"] == files.content_hash(step.output / "model.safetensors")
    rows = tracking.read(step.dir / "metrics.jsonl")
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2]
    assert (step.dir.parent / "sft").resolve() == step.dir.resolve()


def test_a_finished_step_is_not_run_again(sft, tmp_path):
    step = run_recipe(tmp_path, {"sft": sft})["sft"]
    before = (step.dir / "done.json").stat().st_mtime_ns
    run_recipe(tmp_path, {"sft": sft})
    assert (step.dir / "done.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_an_adapter_is_merged_into_a_complete_model(kind, sft, pairs, tmp_path, model):
    from peft import PeftModel

    block = sft if kind == "sft" else {**pairs, "kind": "dpo"}
    block = {**block, "model": {"model_name_or_path": model, **LORA}}
    step = run_recipe(tmp_path, {"lora": block})["lora"]
    assert not list(step.output.glob("adapter*"))
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, step.dir / "adapter").eval()
    with torch.no_grad():
        expected = adapted(input_ids=torch.arange(12)[None] + 20).logits
    torch.testing.assert_close(logits(step.output), expected, atol=1e-5, rtol=0)
    assert (logits(step.output) - logits(model)).abs().max() > 1e-4


def test_dpo_starts_at_ln_2_and_its_reference_is_its_input(pairs, tmp_path):
    step = run_recipe(tmp_path, {"dpo": pairs})["dpo"]
    first = next(row for row in tracking.read(step.dir / "metrics.jsonl") if "train/loss" in row)
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert 0 <= artifacts.read_done(step.dir)["metrics"]["eval/rewards/accuracies"] <= 1


def test_every_loss_of_trl_is_one_key_away(pairs, tmp_path):
    step = run_recipe(tmp_path, {"dpo": pairs}, "stages.dpo.train.loss_type=[ipo, sft]",
                      "stages.dpo.train.loss_weights=[1.0, 0.5]")["dpo"]  # fmt: skip
    assert step.done


def test_equal_pairs_are_dropped_and_counted(pairs, tmp_path, write):
    rows = [*PAIR_ROWS, {**PAIR_ROWS[0], "rejected": PAIR_ROWS[0]["chosen"]}]
    step = run_recipe(tmp_path, {"dpo": {**pairs, "data": write("equal.jsonl", rows)}})["dpo"]
    counts = {key: value for row in tracking.read(step.dir / "metrics.jsonl") for key, value in row.items()}
    assert counts["data/equal_pairs_dropped"] == 1
    assert counts["data/pairs"] == len(PAIR_ROWS)


@pytest.mark.parametrize("lora", [{}, LORA])
def test_reward_model_is_complete_and_scores_as_it_was_trained(lora, pairs, tmp_path, model):
    from trimtab.pipelines.planning import schema

    block = {**pairs, "model": {"model_name_or_path": model, **lora}, "train": {**TRAIN, "max_steps": 30}}
    step = run_recipe(tmp_path, {"reward": block})["reward"]
    accuracy = artifacts.read_done(step.dir)["metrics"]["eval/accuracy"]
    reward = schema.load_reward({"kind": "reward_model", "path": str(step.output)})
    prompts = [row["prompt"] for row in PAIR_ROWS]
    chosen = reward(prompts=prompts, completions=[row["chosen"] for row in PAIR_ROWS])
    rejected = reward(prompts=prompts, completions=[row["rejected"] for row in PAIR_ROWS])
    measured = sum(a > b for a, b in zip(chosen, rejected, strict=True)) / len(chosen)
    assert measured == pytest.approx(accuracy)
    normal = schema.load_reward({"kind": "reward_model", "path": str(step.output), "normalize": True})
    both = normal(prompts=prompts * 2, completions=[row[key] for key in ("chosen", "rejected") for row in PAIR_ROWS])
    assert (statistics.fmean(both), statistics.pstdev(both)) == pytest.approx((0, 1), abs=1e-5)  # it was the eval data
    assert lora or accuracy > 0.9


def test_listwise_reward_model_learns_the_ranking(model, tmp_path, write):
    rows = [{"prompt": row["prompt"], "completions": [[{"role": "assistant", "content": text + f" {i}"}]
             for text in ("a and b", "a", "c c")][: 2 + i % 2]} for i, row in enumerate(SFT_ROWS)]  # fmt: skip
    data = write("ranked.jsonl", rows)
    train = {**TRAIN, "max_steps": 40, "learning_rate": 3e-3}
    block = {"kind": "reward", "loss": "listwise", "model": {"model_name_or_path": model}, "data": data,
             "eval_data": data, "train": train}  # fmt: skip
    step = run_recipe(tmp_path, {"ranked": block})["ranked"]
    assert artifacts.read_done(step.dir)["metrics"]["eval/accuracy"] > 0.9
    logits(step.output, AutoModelForSequenceClassification)


def test_pairwise_and_listwise_agree_on_two_answers(model, tmp_path, write):
    """Plackett-Luce on K = 2 is Bradley-Terry, so both trainers end with the same weights."""
    ranked = [{"prompt": row["prompt"], "completions": [row["chosen"], row["rejected"]]} for row in PAIR_ROWS]
    common = {"kind": "reward", "model": {"model_name_or_path": model}, "train": TRAIN}
    steps = run_recipe(tmp_path, {
        "pairs": {**common, "data": write("pairs.jsonl", PAIR_ROWS)},
        "lists": {**common, "data": write("ranked.jsonl", ranked), "loss": "listwise"},
    })  # fmt: skip
    auto = AutoModelForSequenceClassification
    torch.testing.assert_close(logits(steps["pairs"].output, auto), logits(steps["lists"].output, auto),
                               atol=1e-5, rtol=0)  # fmt: skip


def chain(model, prompts):
    """sample -> score -> pair, in both selections, then evaluate."""
    generate = {"max_new_tokens": 6}
    rewards = {"brief": {"kind": "length", "target": 1}, "as": {"kind": "pattern", "regex": "a", "count": True}}
    return {
        "sample": {"model": {"model_name_or_path": model}, "prompts": prompts, "num_generations": 3,
                   "generate": generate, "batch_size": 8},
        "score": {"completions": "$sample", "rewards": rewards, "batch_size": 10},
        "pair": {"completions": "$score", "reward": "as"},
        "all": {"kind": "pair", "completions": "$score", "reward": {"as": 1.0, "brief": 0.1}, "select": "all"},
        "ranked": {"kind": "pair", "completions": "$score", "reward": {"as": 1, "brief": 0.1}, "select": "ranked"},
        "evaluate": {"policies": {"one": model, "two": model}, "reference": model, "prompts": prompts,
                     "rewards": rewards, "generate": generate},
        "report": {},
    }  # fmt: skip


@pytest.fixture(scope="session")
def chained(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    prompts = folder / "prompts.jsonl"
    rows = [{"prompt": [{"role": "user", "content": "say " + "a b " * (1 + i % 3)}], "tag": i} for i in range(7)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_recipe(folder, chain(model, str(prompts)))


def rows_of(step):
    return pq.read_table(step.output / "train.parquet").to_pylist()


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
    step = replace(alone, dir=tmp_path, output=tmp_path / "output")
    step.output.mkdir()
    for rank in (0, 1):
        monkeypatch.setattr(shards, "PartialState", lambda rank=rank: SimpleNamespace(
            num_processes=2, process_index=rank, is_main_process=True, wait_for_everyone=lambda: None))  # fmt: skip
        # rank 0 by itself cannot collect what rank 1 has not made yet
        with pytest.raises(FileNotFoundError) if rank == 0 else nullcontext():
            preflight.build(step).run(step)
    assert rows_of(step) == rows_of(alone)
    assert list((tmp_path / "parts").iterdir())  # another rank may still read them, and a killed step needs them
    assert not (alone.dir / "parts").exists()  # done


def test_scores_stand_beside_their_completions(chained):
    rows, scored = rows_of(chained["sample"]), rows_of(chained["score"])
    assert [row["completion_ids"] for row in rows] == [row["completion_ids"] for row in scored]
    for row in scored:
        assert row["scores"]["as"] == row["completion"][0]["content"].count("a")
    metrics = artifacts.read_done(chained["score"].dir)["metrics"]
    assert metrics["rewards/as/mean"] == pytest.approx(sum(row["scores"]["as"] for row in scored) / len(scored))
    assert metrics["rewards/as/abstained"] == 0


def test_pairs_are_ordered_by_score_and_what_is_left_out_is_counted(chained):
    scored = rows_of(chained["score"])
    rows = rows_of(chained["pair"])
    assert all(row["chosen_score"] > row["rejected_score"] for row in rows)
    assert all(row["chosen"][0]["content"].count("a") == row["chosen_score"] for row in rows)
    metrics = artifacts.read_done(chained["pair"].dir)["metrics"]
    assert metrics["rows"] + metrics.get("ties_dropped", 0) <= 7
    texts = [[r["completion"][0]["content"] for r in scored if r["prompt_index"] == i] for i in range(7)]
    assert metrics.get("duplicates_dropped", 0) == sum(len(group) - len(set(group)) for group in texts)
    for row in rows_of(chained["ranked"]):
        assert row["completion_scores"] == sorted(row["completion_scores"], reverse=True)
    assert len(rows_of(chained["all"])) >= len(rows)


def test_a_prompt_without_scores_makes_no_pair(tmp_path, write):
    rows = [{"prompt": "p", "completion": f"answer {k}", "prompt_index": index, "sample_index": k,
             "scores": {"r": float(k) if index else None}} for index in (0, 1) for k in (0, 1, 2)]  # fmt: skip
    data = write("scored.jsonl", rows)
    selects = ("best_worst", "all", "ranked", "ends", "drawn")
    steps = run_recipe(tmp_path, {name: {"kind": "pair", "completions": data, "reward": "r", "select": name}
                                  for name in selects})  # fmt: skip
    for name in selects:
        assert artifacts.read_done(steps[name].dir)["metrics"]["unscored_dropped"] == 3
        assert len(rows_of(steps[name])) == (3 if name == "all" else 1)


def test_evaluation_of_a_policy_against_itself_is_even(chained):
    result = json.loads((chained["evaluate"].output / "evaluation.json").read_text())
    two = result["policies"]["two"]
    assert two["win_rate"]["as"]["rate"] == 0.5  # the same seed, the same completions
    assert two["difference"]["as"] == {"mean": 0.0, "stderr": 0.0}
    assert two["kl"]["mean"] == pytest.approx(0, abs=1e-4)
    assert result["prompts"] == 7
    assert "wins vs one" in (chained["evaluate"].output / "summary.txt").read_text()


def test_report_shows_the_chain(chained):
    page = (chained["report"].output / "report.html").read_text()
    for step in chained.values():
        assert step.name == "report" or step.fingerprint in page


def test_a_new_reward_leaves_the_samples_alone(chained):
    from trimtab.pipelines.planning.recipe import Recipe

    path = chained["sample"].dir.parents[2] / "recipe.yaml"
    steps = Recipe.load(str(path), ["stages.score.rewards.brief.target=5"]).steps
    assert [step.name for step in steps if not step.done] == ["score", "pair", "all", "ranked", "report"]


def test_a_loss_that_is_not_a_number_stops_the_run(sft, tmp_path):
    with pytest.raises(FloatingPointError, match="is not a number at step"):
        run_recipe(tmp_path, {"sft": {**sft, "train": {**TRAIN, "learning_rate": 1e30, "max_steps": 6}}})
