"""Direct preference optimisation: where it starts, the losses of trl, and pairs without a preference."""

import math

import pytest
import torch
from conftest import PAIR_ROWS
from outputs import metrics_of
from run_steps import refused, run_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.pipelines.recording import artifacts, tracking


def test_dpo_starts_at_ln_2_and_its_reference_is_its_input(pairs, tmp_path):
    step = run_recipe(tmp_path, {"dpo": pairs})["dpo"]
    first = next(row for row in tracking.read(step.dir / "metrics.jsonl") if "train/loss" in row)
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert 0 <= metrics_of(step)["eval/rewards/accuracies"] <= 1


def test_a_reference_of_its_own_is_what_the_loss_is_against(pairs, model, tmp_path, capsys):
    """The policy's own weights are the reference by default; against other ones the first loss is not ln 2."""
    same = run_recipe(tmp_path, {"dpo": {**pairs, "ref_model": {"model_name_or_path": model}}})["dpo"]
    other = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        other.get_output_embeddings().weight *= 20
    other.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "other")
    against = {"ref_model": {"model_name_or_path": str(tmp_path / "other")}, "eval_data": None}
    apart = run_recipe(tmp_path, {"dpo": {**pairs, **against}})["dpo"]
    first_losses = [
        next(row["train/loss"] for row in tracking.read(step.dir / "metrics.jsonl") if "train/loss" in row)
        for step in (same, apart)
    ]
    assert first_losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(first_losses[1] - math.log(2)) > 1e-3
    synced = {**pairs, **against, "train": {**pairs["train"], "sync_ref_model": True}}
    assert "dpo.train.sync_ref_model: follows the policy" in refused(tmp_path, {"dpo": synced}, capsys)


def test_every_loss_of_trl_is_one_key_away(pairs, tmp_path):
    step = run_recipe(
        tmp_path, {"dpo": pairs}, "stages.dpo.train.loss_type=[ipo, sft]", "stages.dpo.train.loss_weights=[1.0, 0.5]"
    )["dpo"]
    assert step.done


def test_equal_pairs_are_dropped_and_counted(pairs, tmp_path, write):
    rows = [*PAIR_ROWS, {**PAIR_ROWS[0], "rejected": PAIR_ROWS[0]["chosen"]}]
    step = run_recipe(tmp_path, {"dpo": {**pairs, "data": write("equal.jsonl", rows)}})["dpo"]
    counts = {key: value for row in tracking.read(step.dir / "metrics.jsonl") for key, value in row.items()}
    assert counts["data/dropped/equal_pairs"] == 1
    (read,) = artifacts.read_done(step.dir)["rows"]["data"].values()
    assert read["read"] - read["dropped"] == read["used"] == counts["data/rows"]
    assert counts["data/rows"] == len(PAIR_ROWS)
