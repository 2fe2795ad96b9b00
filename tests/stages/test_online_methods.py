"""Kinds `grpo`, `rloo` and `distill`: the gradient that they take, exact resumption, tools, and mistakes."""

from types import SimpleNamespace

import pytest
import torch
import trl
import yaml
from conftest import ROOT
from constrained_runs import REWARDS, TRAIN, logged, run_again
from outputs import metrics_of
from run_steps import refused, run_recipe
from safetensors.torch import load_file
from tiny_trainers import CPU, first_batch, grpo_trainer

from trimtab.pipelines.algorithms.target_surrogates import Proximal
from trimtab.pipelines.planning import field_types

WEIGHTED = {
    name: {key: value for key, value in block.items() if key != "threshold"} for name, block in REWARDS.items()
}
OF_GRPO = ("use_bias_correction_kl", "scale_rewards")


def stage(kind, model, prompts, **options):
    """The stage with the rewards of constrained_runs, and three steps; `train` in the options is added to its own."""
    known = {key: value for key, value in TRAIN.items() if kind == "grpo" or key not in OF_GRPO}
    block = {"model": {"model_name_or_path": model}, "data": prompts, "rewards": WEIGHTED}
    if kind == "distill":
        known.pop("num_generations")
        block = {"model": {"model_name_or_path": model}, "data": prompts, "teacher": {"model_name_or_path": model}}
    train = {**known, "max_steps": 3, **options.pop("train", {})}
    return {kind: {**block, **options, "train": train}}


@pytest.mark.parametrize(("kind", "proximal"), [("grpo", None), ("grpo", 0.5), ("rloo", None), ("distill", None)])
def test_a_run_that_goes_on_ends_with_the_weights_of_one_that_was_not_stopped(
    kind, proximal, model, prompts, tmp_path
):
    """Ten prompts and four in a step: the third step is of another epoch's order, or in the midst of a rollout."""
    size = {"per_device_train_batch_size": 4} if kind == "distill" else {"per_device_train_batch_size": 16}
    extra = {"teacher": {"model_name_or_path": other(model, tmp_path)}} if kind == "distill" else {}
    if proximal:
        size, extra = {**size, "num_iterations": 2}, {"proximal": proximal, "distance": "squared"}
    block = stage(kind, model, prompts, train=size, **extra)
    whole = run_recipe(tmp_path, block)[kind]
    again = run_again(tmp_path, block, whole, 1 if proximal else 2)
    assert weights(again) == weights(whole)


def test_look_ahead_samples_and_learns_further_on_and_keeps_where_it_is(model, prompts, tmp_path):
    """A run that goes on ends with the bits of one that did not; the last checkpoint's weights are its look ahead."""
    block = stage(
        "grpo", model, prompts, optimizer={"class": "igt", "eta": 0.25}, train={"learning_rate": 0.5, "beta": 0.0}
    )
    whole = run_recipe(tmp_path, block)["grpo"]
    again = run_again(tmp_path, block, whole, 2)
    assert weights(again) == weights(whole)
    kept = load_file(whole.output / "model.safetensors")
    checkpoints = [whole.dir / "checkpoints" / f"checkpoint-{step}" for step in (2, 3)]
    before, last = (torch.load(folder / "optimizer.pt", weights_only=True) for folder in checkpoints)
    trained = load_file(checkpoints[1] / "model.safetensors")

    def length(state, other):
        """Of the way from one set of weights to another; a state's are its iterates."""
        return torch.stack([(a - b).norm() for a, b in zip(state, other, strict=True)]).norm().item()

    iterates, earlier = ([entry["iterate"] for entry in state["state"].values()] for state in (last, before))
    rate = logged(whole)[-1]["train/learning_rate"]
    assert length(iterates, earlier) == pytest.approx(rate, rel=1e-4)
    names = sorted(kept)
    ahead = length([trained[name] for name in names], [kept[name] for name in names])
    assert ahead == pytest.approx(0.75 / 0.25 * rate, rel=1e-4)


def weights(step):
    return (step.output / "model.safetensors").read_bytes()


def other(model, folder):
    """A model of the same vocabulary and other weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    teacher = AutoModelForCausalLM.from_pretrained(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight += 0.3 * torch.randn_like(weight)
    teacher.save_pretrained(folder / "teacher")
    AutoTokenizer.from_pretrained(model).save_pretrained(folder / "teacher")
    return str(folder / "teacher")


def test_weights_are_those_of_the_blocks(model, prompts, tmp_path):
    """What trl calls `reward` is the weighted sum of the means."""
    weighted = {**WEIGHTED, "brief": {**WEIGHTED["brief"], "weight": 3.0}}
    step = run_recipe(tmp_path, stage("grpo", model, prompts, rewards=weighted))["grpo"]
    row = logged(step)[0]
    total = 3 * row["train/rewards/brief/mean"] + row["train/rewards/as/mean"]
    assert row["train/reward"] == pytest.approx(total, abs=1e-5)


def test_a_floor_divides_by_the_deviation_and_itself():
    """Answers that differ by noise alone get advantages of its size; trl's have a standard deviation of 1."""
    from trimtab.pipelines.trainers.rollouts import group_advantages
    from trimtab.pipelines.trainers.weighted_rewards import floored

    noise = torch.tensor([[0.501], [0.499], [0.502], [0.498], [0.0], [1.0], [0.0], [1.0]])
    by_trl = group_advantages(noise, 4, "group").flatten()
    ours = by_trl * floored(noise, torch.ones(1), 4, 0.05)
    groups = noise.view(2, 4)
    deviations = groups.std(dim=1, keepdim=True)
    wanted = (groups - groups.mean(dim=1, keepdim=True)) / (deviations + 0.05)
    assert torch.allclose(ours, wanted.flatten(), atol=1e-5)
    assert by_trl[:4].abs().max() > 0.9
    assert ours[:4].abs().max() < 0.05


def test_the_trainer_uses_the_floor(model, prompts, tmp_path):
    from trimtab.pipelines.trainers.weighted_rewards import WeightedGRPOTrainer

    args = {**TRAIN, **CPU, "scale_rewards": "group", "save_strategy": "no"}
    batches = {}
    for floor in (None, 1.0):
        trainer = grpo_trainer(WeightedGRPOTrainer, model, prompts, tmp_path, args, std_floor=floor)
        rows = [trainer.train_dataset[index] for index in (0, 0, 0, 0, 1, 1, 1, 1)]
        trainer.model.train()
        batches[floor] = trainer._generate_and_score_completions(rows)["advantages"]
    assert batches[None].abs().max() > 0.5
    assert (batches[1.0].abs() <= batches[None].abs() + 1e-6).all()
    assert batches[1.0].abs().max() < 0.9 * batches[None].abs().max()


def test_the_normalized_advantages_of_a_batch_are_divided_by_their_deviation_and_the_floor(model, prompts, tmp_path):
    """With trl's own floor they are trl's; a completion without any score has none, and is no part of the mean."""
    from trimtab.pipelines.trainers.weighted_rewards import TRL_FLOOR, WeightedRLOOTrainer

    args = {key: value for key, value in TRAIN.items() if key not in OF_GRPO} | {**CPU, "save_strategy": "no"}
    batches = {}
    for floor in ("plain", None, TRL_FLOOR, 0.5):
        settings = {**args, "normalize_advantages": floor != "plain"}
        given = None if floor == "plain" else floor
        trainer = grpo_trainer(
            WeightedRLOOTrainer, model, prompts, tmp_path, settings, trl.RLOOConfig, std_floor=given
        )
        rows = [trainer.train_dataset[index] for index in (0, 0, 0, 0, 1, 1, 1, 1)]
        trainer.model.train()
        batches[floor] = trainer._generate_and_score_completions(rows)["advantages"]
    assert torch.allclose(batches[TRL_FLOOR], batches[None], atol=1e-5)
    raw = batches["plain"]
    assert torch.allclose(batches[0.5], (raw - raw.mean()) / (raw.std() + 0.5), atol=1e-5)


@pytest.mark.parametrize("distance", ["kl", "squared"])
def test_a_proximal_term_takes_the_place_of_the_clip(distance, model, prompts, tmp_path):
    """Its loss and gradient, at a policy that has left the one that sampled, are those of the formula."""
    from trimtab.pipelines.trainers.weighted_rewards import WeightedGRPOTrainer

    args = {**TRAIN, **CPU, "save_strategy": "no", "loss_type": "grpo", "num_iterations": 2}
    trainer = grpo_trainer(WeightedGRPOTrainer, model, prompts, tmp_path, args, proximal=Proximal(0.5, distance))
    batch = first_batch(trainer, 8)
    batch["advantages"] = torch.tensor([2.0, -1.0, 0.5, 0.0, -2.0, 1.0, 0.3, -0.4])
    with torch.no_grad():
        trainer.model.lm_head.weight.add_(torch.randn(trainer.model.lm_head.weight.shape) * 0.5)
    mask = batch["completion_mask"].bool()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    seen = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    logits = trainer.model(ids, attention_mask=seen).logits[:, -mask.shape[1] - 1 : -1]
    now = logits.log_softmax(-1).gather(2, batch["completion_ids"].unsqueeze(2)).squeeze(2)
    log_ratio = now - batch["old_per_token_logps"]
    ratio = log_ratio.exp()
    assert (ratio[mask] - 1).abs().max() > 0.3, "far beyond the clip"
    gains = batch["advantages"].unsqueeze(1)
    of_tokens = {
        "kl": -ratio * gains + (ratio * log_ratio - ratio + 1) / 0.5,
        "squared": -gains * (1 + log_ratio) + log_ratio**2 / (2 * 0.5),
    }[distance]
    ratio_to_start = batch["ref_per_token_logps"] - now
    kl = (ratio_to_start.exp() - ratio_to_start - 1) * ratio  # with the importance ratio, as trl has it
    wanted = (((of_tokens + TRAIN["beta"] * kl) * mask).sum(1) / mask.sum(1)).mean()
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
    weight = trainer.model.lm_head.weight
    ours, theirs = (torch.autograd.grad(value, weight)[0] for value in (loss, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    assert batch["advantages"].shape == (8,), "the rollout stays as it was, for its other steps"
    distances = {"kl": ratio * log_ratio - ratio + 1, "squared": log_ratio**2 / 2}[distance]
    mean = (distances * mask).sum() / mask.sum()
    assert (trainer.epsilon_low, trainer.epsilon_high) == (0.2, 0.2)
    assert trainer.merged["train"].merge()["proximal/distance"] == pytest.approx(mean.item(), rel=1e-4)


def test_with_one_step_for_each_rollout_the_surrogate_is_the_plain_gradient(model, prompts, tmp_path):
    block = {"beta": 0.0, "max_steps": 2, "loss_type": "grpo", "save_steps": 2}
    plain, held = (
        stage("grpo", model, prompts, train=block, **extra) for extra in ({}, {"proximal": 0.01})
    )  # fmt: skip
    ran = run_recipe(tmp_path, {"plain": {"kind": "grpo", **plain["grpo"]}, "held": {"kind": "grpo", **held["grpo"]}})
    assert weights(ran["plain"]) == weights(ran["held"])
    assert ran["plain"].fingerprint != ran["held"].fingerprint


def test_the_student_comes_nearer_to_its_teacher(model, prompts, tmp_path):
    block = stage("distill", model, prompts, train={"max_steps": 6, "learning_rate": 5e-2, "save_strategy": "no"})
    block["distill"]["teacher"] = {"model_name_or_path": other(model, tmp_path)}
    step = run_recipe(tmp_path, block)["distill"]
    losses = [row["train/loss"] for row in logged(step)]
    assert losses[-1] < 0.8 * losses[0]
    assert metrics_of(step)["train/steps"] == 6


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("grpo", {"rewards": {}}, "grpo.rewards: name at least one reward"),
        ("rloo", {"rewards": {}}, "rloo.rewards: name at least one reward"),
        ("grpo", {"train": {"reward_weights": [1.0, 2.0]}}, "use `weight` in the reward's block"),
        ("rloo", {"train": {"loss_type": "grpo"}}, "rloo.train.loss_type: unknown key"),
        ("grpo", {"train": {"per_device_train_batch_size": 64}}, "grpo.data: a rollout needs 16 different prompts"),
        ("grpo", {"std_floor": 0.0, "train": {"scale_rewards": "group"}}, "grpo.std_floor: must be above 0, got 0"),
        ("grpo", {"std_floor": 0.1}, "grpo.std_floor: is of the standard deviation of a group's sums"),
        ("rloo", {"std_floor": 0.1}, "rloo.std_floor: nothing is divided by a standard deviation"),
        ("rloo", {"std_floor": 0.0, "train": {"normalize_advantages": True}}, "std_floor: must be above 0, got 0"),
        ("grpo", {"proximal": 0.0, "train": {"beta": 0.0}}, "grpo.proximal: must be above 0, got 0"),
        ("grpo", {"distance": "squared"}, "grpo.distance: is that of `proximal`, which is not given"),
        ("grpo", {"proximal": 1.0, "train": {"epsilon": 0.3}}, "grpo.train.epsilon: is set by"),
        ("grpo", {"proximal": 1.0, "train": {"loss_type": "cispo"}}, "`loss_type` one of grpo, bnpo"),
        ("grpo", {"optimizer": "igt", "train": {"num_iterations": 2}}, "grpo.optimizer: igt takes each gradient at"),
        ("grpo", {"optimizer": {"class": "igt", "eta": 2}}, "eta must be above 0 and at most 1, got 2"),
        ("grpo", {"tools": ["subprocess.run"]}, "grpo.tools.0: subprocess.run is of an installed package"),
        ("grpo", {"tools": ["no_such.tool"]}, "grpo.tools.0: 'no_such.tool' leads to no function"),
        ("grpo", {"environment_factory": "os.environ"}, "environment_factory: os.environ is of an installed package"),
        ("distill", {"train": {"teacher_model_name_or_path": "org/large"}}, "use `teacher.model_name_or_path`"),
        ("distill", {"teacher": {}}, "distill.teacher.model_name_or_path: required key is missing"),
    ],
)
def test_a_mistake_is_named(kind, change, message, model, prompts, tmp_path, capsys):
    assert message in refused(tmp_path, stage(kind, model, prompts, **change), capsys)


def table():
    """The settings that docs/online-methods.md gives for each method."""
    rows = [line.split("|") for line in (ROOT / "docs" / "online-methods.md").read_text().splitlines()]
    return {row[1].strip(): yaml.safe_load(row[2].strip(" `")) for row in rows if len(row) == 4 and "{" in row[2]}


@pytest.mark.parametrize("method", table())
def test_the_settings_of_the_docs_are_keys_that_trl_takes(method, tmp_path):
    settings = {key: float(value) if key.startswith("epsilon") else value for key, value in table()[method].items()}
    trl.GRPOConfig(str(tmp_path), **CPU, **settings)
    known = field_types.documented_values(trl.GRPOConfig, "loss_type")
    assert settings.get("loss_type", "grpo") in known


TOOL = '''
def double(number: int) -> int:
    """Doubles a number.

    Args:
        number: What is doubled.

    Returns:
        Twice the number.
    """
    return 2 * number
'''


def test_a_tool_is_code_that_needs_consent_and_is_part_of_the_step(model, prompts, tmp_path, monkeypatch):
    from short_trainings import plan

    from trimtab.pipelines.planning import consent

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "tools_of_mine.py"
    file.write_text(TOOL)
    monkeypatch.setenv("TRIMTAB_TRUST", "")
    block = stage("grpo", model, prompts, tools=["tools_of_mine.double"])
    step = plan(tmp_path, block)["grpo"]
    (code,) = consent.code_of(step)
    assert (code.file, code.path) == (file, ("stages", "grpo", "tools", "0"))
    assert not code.is_given
    monkeypatch.setenv("TRIMTAB_TRUST", str(tmp_path))
    step = plan(tmp_path, block)["grpo"]
    file.write_text(TOOL.replace("2 *", "3 *"))
    assert plan(tmp_path, block)["grpo"].fingerprint != step.fingerprint


def test_distillation_draws_by_seeds_of_its_own():
    from trimtab.pipelines.trainers.distillation import DistillationTrainer

    trainer = DistillationTrainer.__new__(DistillationTrainer)
    trainer.use_vllm, trainer.accelerator = False, SimpleNamespace(distributed_type="NO", is_fsdp2=False)
    trainer.args = SimpleNamespace(gradient_accumulation_steps=3)
    assert not trainer._samples_elsewhere()
    assert trainer.micro_batches_of_rollout() == 3
