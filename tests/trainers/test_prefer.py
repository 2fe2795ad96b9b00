"""From samples to a policy without a reference model: rows that `pair` makes, and all losses of `prefer` on them."""

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from conftest import PAIR_ROWS, ROOT
from run_steps import run_recipe, write_recipe
from test_stages import LORA, TRAIN, logits, rows_of
from transformers import AutoModelForCausalLM, AutoTokenizer
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts, tracking
from trimtab.scripts import train

LOSSES = ["dpo", "ipo", "sppo", "orpo", "rrhf", "exo", "plackett_luce"]
WITH_REFERENCE = [loss for loss in LOSSES if loss not in ("orpo", "rrhf")]


@pytest.fixture
def stranger(model, tmp_path):
    """Another model than the one that has sampled."""
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        policy.get_output_embeddings().weight *= 20
    policy.save_pretrained(tmp_path / "stranger")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "stranger")
    return str(tmp_path / "stranger")


def logged(step):
    return [row for row in tracking.read(step.dir / "metrics.jsonl") if "train/loss" in row]


def metrics(step):
    return artifacts.read_done(step.dir)["metrics"]


def sha256(step):
    return artifacts.read_done(step.dir)["files"]["model.safetensors"]["sha256"]


def refused(folder, stages, capsys):
    assert train.main([str(write_recipe(folder, stages, wandb=False))]) == 2
    return capsys.readouterr().err


def trainer(model, lists, folder, **options):
    import trl
    from datasets import Dataset
    from trimtab.pipelines.algorithms import losses
    from trimtab.pipelines.trainers.lists import ListTrainer

    args = trl.SFTConfig(str(folder), use_cpu=True, report_to="none", gradient_checkpointing=False,
                         **{"bf16": False, **options})  # fmt: skip
    return ListTrainer(loss=partial(losses.dpo, beta=0.1), args=args, model=model,
                       train_dataset=Dataset.from_list(rows_of(lists["ranked"])))  # fmt: skip


def test_lists_carry_tokens_reference_and_probabilities_of_winning(lists):
    scored = {}
    for row in rows_of(lists["score"]):
        score = row["scores"]["as"] + 0.1 * row["scores"]["brief"]
        answers = scored.setdefault(row["prompt"][0]["content"], {})
        answers.setdefault(row["completion"][0]["content"], (row, score))
    rows = rows_of(lists["ranked"])
    assert len({len(row["completions"]) for row in rows}) > 1
    for row in rows:
        known = scored[row["prompt"][0]["content"]]
        assert row["completion_scores"] == sorted(row["completion_scores"], reverse=True)
        assert len(row["completions"]) == len(row["completion_ids"]) == len(row["ref_logps"]) == len(row["win_probs"])
        for k, completion in enumerate(row["completions"]):
            source, score = known[completion[0]["content"]]
            assert row["prompt_ids"] == source["prompt_ids"]
            assert row["completion_ids"][k] == source["completion_ids"]
            assert row["completion_scores"][k] == score
            assert row["ref_logps"][k] == pytest.approx(sum(source["logprobs"]), abs=1e-9)
            wins = [1 / (1 + math.exp(other - score)) for _, other in known.values()]  # also over what was dropped
            assert row["win_probs"][k] == pytest.approx(sum(wins) / len(wins), abs=1e-9)


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


def test_log_probabilities_are_those_of_one_answer_at_a_time(model, lists, tmp_path):
    rows = rows_of(lists["ranked"])
    subject = trainer(model, lists, tmp_path)
    batch = subject.data_collator(rows)
    found = subject.compute_loss(subject.model.eval(), batch, return_outputs=True)[1]["logps"]
    assert found.shape == (len(rows), max(len(row["completions"]) for row in rows))
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    for i, row in enumerate(rows):
        for k, answer in enumerate(row["completion_ids"]):
            ids = torch.tensor([row["prompt_ids"] + answer])
            with torch.no_grad():
                logprobs = policy(input_ids=ids).logits.log_softmax(-1)
            start = len(row["prompt_ids"])
            alone = sum(logprobs[0, start + n - 1, token].item() for n, token in enumerate(answer))
            assert found[i, k].item() == pytest.approx(alone, abs=1e-4)
            assert row["ref_logps"][k] == pytest.approx(alone, abs=1e-4)
        assert not found[i, len(row["completion_ids"]) :].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_falls_and_the_best_answer_gains(loss, block, lists, tmp_path):
    """On lists of two and of more."""
    block |= {"loss": loss, "train": {**TRAIN, "max_steps": 12, "per_device_train_batch_size": 9,
                                      "learning_rate": 3e-3}}  # fmt: skip
    steps = run_recipe(tmp_path, {select: {**block, "data": str(lists[select].output)}
                                  for select in ("ends", "ranked")})  # fmt: skip
    for step in steps.values():
        first, *_, last = logged(step)
        assert last["train/loss"] < first["train/loss"]
        assert last["train/margins"] > first["train/margins"]
        assert last["train/logps/best"] - last["train/logps/worst"] > (
            first["train/logps/best"] - first["train/logps/worst"]
        )
        if loss in WITH_REFERENCE:
            assert first["train/margins"] == pytest.approx(0, abs=1e-4)  # the policy is its own reference
            assert last["train/margins"] > 0.01
            assert metrics(step)["ref_logps/largest_error"] < 1e-4
        assert last["train/rewards/accuracies"] > (0.5 if loss in WITH_REFERENCE else 0)
        assert step.output.joinpath("model.safetensors").exists()


@pytest.mark.parametrize("lora", [{}, LORA])
def test_dpo_on_two_answers_starts_at_ln_2(lora, block, lists, model, tmp_path):
    block |= {"data": str(lists["ends"].output), "model": {"model_name_or_path": model, **lora}}
    step = run_recipe(tmp_path, {"prefer": block})["prefer"]
    assert logged(step)[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert not list(step.output.glob("adapter*"))  # merged
    assert (logits(step.output) - logits(model)).abs().max() > 1e-4


def test_gradient_accumulation_changes_nothing(block, model, tmp_path):
    """One batch of four rows and two of two are the same loss and, by one step of plain descent, the same gradient."""
    train = {**TRAIN, "max_steps": 1, "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0}
    steps = run_recipe(tmp_path, {
        name: {**block, "train": {**train, "per_device_train_batch_size": 4 // parts,
                                  "gradient_accumulation_steps": parts}}
        for name, parts in (("whole", 1), ("halves", 2), ("quarters", 4))
    })  # fmt: skip
    whole, *others = (logged(step)[0] for step in steps.values())
    assert (logits(steps["whole"].output) - logits(model)).abs().max() > 1e-3
    for row, step in zip(others, list(steps.values())[1:], strict=True):
        for key in ("train/loss", "train/grad_norm", "train/margins", "train/logps/best", "train/logps/worst"):
            assert row[key] == pytest.approx(whole[key], abs=1e-5)
        torch.testing.assert_close(logits(step.output), logits(steps["whole"].output), atol=1e-6, rtol=0)


def test_bfloat16(model, lists, tmp_path):
    rows = rows_of(lists["ranked"])
    subject = trainer(model, lists, tmp_path, bf16=True, max_steps=2, logging_steps=1)
    subject.train()
    assert all(math.isfinite(row["loss"]) for row in subject.state.log_history if "loss" in row)
    subject.model.eval()
    with subject.accelerator.autocast():
        found = subject.compute_loss(subject.model, subject.data_collator(rows), return_outputs=True)[1]["logps"]
    assert found.dtype == torch.float32


@pytest.mark.parametrize("lora", [{}, LORA])
def test_interrupted_it_ends_with_the_weights_of_an_undisturbed_run(lora, block, model, tmp_path, monkeypatch):
    from trimtab.pipelines.trainers.lists import ListTrainer

    block |= {"model": {"model_name_or_path": model, **lora}}
    block["train"] |= {"max_steps": 7, "save_steps": 3}
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    undisturbed = run_recipe(a, {"prefer": block})["prefer"]

    def killed(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return training_step(self, *args, **kwargs)

    training_step = ListTrainer.training_step
    with monkeypatch.context() as patch:
        patch.setattr(ListTrainer, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(b, {"prefer": block})
    resumed = run_recipe(b, {"prefer": block})["prefer"]
    assert metrics(resumed)["train/resumed_from"] == 3
    assert metrics(undisturbed)["train/resumed_from"] == 0
    assert sha256(resumed) == sha256(undisturbed)
    assert [row["step"] for row in logged(resumed)] == list(range(1, 8))


def test_evaluation_does_not_depend_on_the_batch(block, lists, tmp_path):
    data = str(lists["ranked"].output)
    train = {**block["train"], "eval_strategy": "steps", "eval_steps": 1}
    steps = run_recipe(tmp_path, {f"by{size}": {**block, "eval_data": data,
                                                "train": {**train, "per_device_eval_batch_size": size}}
                                  for size in (2, 9)})  # fmt: skip
    keys = ("eval/loss", "eval/rewards/accuracies", "eval/margins", "eval/logps/best", "eval/logps/worst")
    by2, by9 = ([row for row in tracking.read(step.dir / "metrics.jsonl") if "eval/loss" in row and "step" in row]
                for step in steps.values())  # fmt: skip
    assert [row["step"] for row in by2[:2]] == [1, 2]
    for few, many in zip(by2, by9, strict=True):
        assert {key: few[key] for key in keys} == pytest.approx({key: many[key] for key in keys}, abs=1e-4)
    assert metrics(steps["by9"])["eval/loss"] == by9[-1]["eval/loss"]
    assert 0 <= by9[-1]["eval/rewards/accuracies"] <= 1


def test_rows_that_do_not_fit_are_left_out_and_counted(block, lists, tmp_path):
    lengths = [len(row["prompt_ids"]) + max(map(len, row["completion_ids"])) for row in rows_of(lists["ranked"])]
    limit = sorted(lengths)[len(lengths) // 2]
    block["train"]["max_length"] = limit
    lost = sum(length > limit for length in lengths)
    assert lost
    assert metrics(run_recipe(tmp_path, {"prefer": block})["prefer"])["train/rows_too_long"] == lost
    block["train"]["max_length"] = min(lengths) - 1
    with pytest.raises(ValueError, match=f"none of {len(lengths)} rows fits in max_length {min(lengths) - 1}"):
        run_recipe(tmp_path, {"prefer": block})


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
        ({"loss": "kto"}, "expected one of dpo, ipo, sppo, orpo, rrhf, exo, plackett_luce"),
        ({"train": {"packing": True}}, "stages.prefer.train.packing: has no meaning for lists of answers"),
        ({"train": {"eval_strategy": "epoch"}}, "eval_strategy needs `eval_data`"),
    ],
)
def test_options_that_cannot_be_right(change, message, block, tmp_path, capsys):
    assert message in refused(tmp_path, {"prefer": {**block, **change}}, capsys)


@pytest.mark.slow
def test_two_ranks_take_the_step_of_one(block, tmp_path):
    """Two rows on each of two ranks are the gradient and the metrics of four rows on one."""
    train = {**TRAIN, "max_steps": 1, "optim": "sgd", "learning_rate": 0.5, "per_device_train_batch_size": 4}
    alone = run_recipe(tmp_path, {"prefer": {**block, "train": train}})["prefer"]
    halves = {**block, "train": {**train, "per_device_train_batch_size": 2}}
    path = str(write_recipe(tmp_path, {"prefer": halves}, wandb=False))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml",
               "--num_processes", "2", "scripts/train.py", path]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (both,) = Recipe.load(path).steps
    assert artifacts.read_done(both.dir)["world_size"] == 2
    torch.testing.assert_close(logits(both.output), logits(alone.output), atol=1e-5, rtol=0)
    one, two = logged(alone)[0], logged(both)[0]
    for key in ("train/loss", "train/rewards/accuracies", "train/margins", "train/logps/best", "train/logps/worst"):
        assert two[key] == pytest.approx(one[key], abs=1e-4)
