"""Training on several rewards by multipliers: the gradient, exact resumption, failures of rewards, and mistakes."""

import json
from itertools import pairwise

import pytest
import torch
from constrained_runs import REWARDS, TRAIN, constrained, logged, resumed
from outputs import metrics_of
from run_steps import refused, run_recipe, write_recipe
from tiny_trainers import first_batch, grpo_trainer

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import runner


@pytest.fixture(scope="module")
def ran(model, prompts, tmp_path_factory):
    return run_recipe(tmp_path_factory.mktemp("constrained"), {**constrained(model, prompts), "report": {}})


@pytest.mark.parametrize("method", ["mu", "xi", "all", "sat", "fixed"])
def test_the_gradient_is_that_of_the_lagrangian(method, model, prompts, tmp_path, monkeypatch):
    """A tabular policy of five answers, each as often in the batch as it is likely: then means are expectations."""
    from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers
    from trimtab.pipelines.algorithms.objectives import METHODS, Fixed, Lagrangian, Saturating
    from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer

    counts = torch.tensor([1, 2, 3, 4, 10])
    answers = torch.repeat_interleave(torch.arange(5), counts)[:, None]  # (20, 1)
    logits = (counts / 20).log().requires_grad_()
    reference = torch.tensor([0.3, 0.1, 0.1, 0.3, 0.2]).log()
    table = torch.tensor([[0.0, 1, 0, 1, 0.5], [2.0, -1, 0.3, 0, 1]])  # rewards of the answers
    means = table @ (counts / 20)
    weights = {"brief": 0.7, "as": 1.3}
    kind = METHODS[method] or "equal"
    constraints = {"brief": Constraint(0.6, kind), "as": Constraint(0.2, kind)}
    if method == "fixed":
        objective = Fixed(weights)
    elif method == "sat":
        objective = Saturating(weights, constraints)
    else:
        objective = Lagrangian(weights if method == "all" else {}, Multipliers(constraints))
    objective.observe(dict(zip(REWARDS, means.tolist(), strict=True)))

    subject = grpo_trainer(
        ConstrainedGRPOTrainer, model, prompts, tmp_path, {**TRAIN, "loss_type": "grpo"}, objective=objective
    )
    monkeypatch.setattr(
        subject,
        "_get_per_token_logps_and_entropies",
        lambda *args, **kwargs: (logits.log_softmax(-1)[answers], torch.zeros(20, 1), None),
    )
    batch = {
        "prompt_ids": answers,
        "prompt_mask": torch.ones_like(answers),
        "completion_ids": answers,
        "completion_mask": torch.ones_like(answers),
        "ref_per_token_logps": reference[answers],
        "advantages_by_reward": (table - means[:, None]).T[answers[:, 0]],
        "num_items_in_batch": torch.tensor(20),
    }
    subject.current_gradient_accumulation_steps = 1
    subject.compute_loss(subject.model, batch).backward()
    ours, logits.grad = logits.grad, None

    policy = logits.softmax(-1)
    values = dict(zip(REWARDS, table @ policy, strict=True))
    kl = 0.1 * (policy * (logits.log_softmax(-1) - reference)).sum()
    total = sum(weights[name] * values[name] for name in REWARDS)
    if method == "fixed":
        lagrangian = total - kl
    elif method == "sat":
        lagrangian = -sum(weights[n] * (values[n] - constraints[n].threshold) ** 2 for n in REWARDS) - kl
    else:
        s = objective.multipliers.values()
        task = (total if method == "all" else 0) - kl
        lagrangian = (2 - sum(s.values())) * task + sum(
            s[n] * constraints[n].sign * (values[n] - constraints[n].threshold) for n in REWARDS
        )
    (-lagrangian).backward()
    torch.testing.assert_close(ours, logits.grad, atol=1e-6, rtol=1e-5)
    assert ours.abs().max() > 1e-3


@pytest.mark.parametrize("method", ["xi", "fixed"])
def test_the_kl_of_whole_answers_has_the_lagrangians_gradient(method, model, prompts, tmp_path, monkeypatch):
    """A policy over all answers of at most two tokens, each as often in the batch as it is likely."""
    from trimtab.pipelines.algorithms import tabular_answers
    from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers
    from trimtab.pipelines.algorithms.objectives import Fixed, Lagrangian
    from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer
    from trimtab.pipelines.trainers.rollouts import Rollout

    tree, counts = tabular_answers.tree(3, 2), torch.tensor([1, 2, 3, 4, 5, 2, 3])
    logits = torch.zeros(tree.size, 3).index_put_(
        (tree.places, tree.tokens), (counts[:, None] * tree.mask).float(), accumulate=True
    )
    logits = logits.log().requires_grad_()
    start = torch.tensor([[0.1, 0.4, 0.5], [0.6, 0.2, 0.2], [0.3, 0.3, 0.4]]).log()
    table = torch.tensor([[0.0, 1, 0, 1, 0.5, 2, -1], [2.0, -1, 0.3, 0, 1, 1, 0]])  # rewards of the answers
    rows = torch.repeat_interleave(torch.arange(7), counts)
    multipliers = Multipliers({"brief": Constraint(0.6, "equal"), "as": Constraint(0.2, "equal")})
    objective = Fixed({"brief": 0.7, "as": 1.3}) if method == "fixed" else Lagrangian({}, multipliers)
    for _ in range(3):  # so that the multipliers are not 0
        objective.observe(dict(zip(REWARDS, (table @ (counts / 20)).tolist(), strict=True)))
        objective.step()
    train = {**TRAIN, "num_generations": 20, "per_device_train_batch_size": 20}
    options = {"objective": objective, "sequence_kl": True}
    subject = grpo_trainer(ConstrainedGRPOTrainer, model, prompts, tmp_path, train, **options)
    monkeypatch.setattr(
        subject,
        "_get_per_token_logps_and_entropies",
        lambda *args, **kwargs: (tabular_answers.logprobs(logits, tree)[rows], torch.zeros(20, 2), None),
    )
    output = {
        "prompt_ids": tree.tokens[rows],
        "prompt_mask": torch.ones(20, 2, dtype=torch.long),
        "completion_ids": tree.tokens[rows],
        "completion_mask": tree.mask[rows],
        "ref_per_token_logps": tabular_answers.logprobs(start, tree)[rows],
        "num_items_in_batch": torch.tensor(20),  # so that the loss is a mean over answers of sums over tokens
    }
    subject.model.train()
    subject.current_gradient_accumulation_steps = 1
    carried = subject._advantages(output, Rollout(rewards=table.T[rows]))
    subject.compute_loss(subject.model, output | carried).backward()
    ours, logits.grad = logits.grad, None

    policy = tabular_answers.logprobs(logits, tree).sum(-1)
    task, weights = objective.weights()
    rewards = torch.tensor([weights[name] for name in REWARDS]) @ table
    log_start = tabular_answers.logprobs(start, tree).sum(-1)
    (-tabular_answers.objective(policy, log_start, rewards, 0.1 * task)).backward()
    torch.testing.assert_close(ours, logits.grad, atol=1e-6, rtol=1e-5)
    assert ours.abs().max() > 1e-3
    per_answer = (policy.exp() * (policy - log_start)).sum().item()
    tokens = tree.mask[rows].sum().item() / 20
    assert subject._metrics["train"]["kl"] == pytest.approx([per_answer / tokens], abs=1e-6)


def test_advantages_travel_with_the_rollout_and_are_trls_for_a_fixed_mix(model, prompts, tmp_path):
    from trimtab.pipelines.algorithms.objectives import Fixed
    from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer

    train = {**TRAIN, "steps_per_generation": 3}
    mix = Fixed({"brief": 0.3, "as": 2.0})
    subject = grpo_trainer(ConstrainedGRPOTrainer, model, prompts, tmp_path, train, objective=mix)
    batch = first_batch(subject, 24)
    assert batch["advantages_by_reward"].shape == (8, 2)
    mixed = batch["advantages_by_reward"] @ torch.tensor([0.3, 2.0])
    torch.testing.assert_close(mixed, batch["advantages"], atol=1e-6, rtol=0)


def test_a_fixed_mix_is_trained_as_by_trl(model, prompts, tmp_path):
    """The completions are the same, drawn by trl; so are the losses, gradients and weights of four steps."""
    from transformers import set_seed
    from trl import GRPOTrainer

    from trimtab.pipelines.algorithms.objectives import Fixed
    from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer
    from trimtab.pipelines.training.compute_once import compute_once

    train = {**TRAIN, "max_steps": 4, "logging_steps": 1, "save_strategy": "no", "reward_weights": [0.3, 2.0]}
    trained = []
    for trainer_class in (GRPOTrainer, ConstrainedGRPOTrainer):
        objective = {} if trainer_class is GRPOTrainer else {"objective": Fixed({"brief": 0.3, "as": 2.0})}
        trainer = grpo_trainer(trainer_class, model, prompts, tmp_path, train, **objective)
        if objective:
            compute_once(trainer)
            trainer.sampler = None
        set_seed(0)
        trainer.train()
        rows = [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row]
        trained.append((rows, trainer.model))
    (theirs, reference), (ours, policy) = trained
    assert len(theirs) == 4
    assert min(norm for _, norm in theirs) > 1e-3
    for expected, row in zip(theirs, ours, strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for expected, weight in zip(reference.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, atol=1e-5, rtol=0)


def test_a_rollout_asks_each_prompt_with_the_tools_and_settings_of_its_row(model, prompts, tmp_path):
    from trimtab.pipelines.algorithms.objectives import Fixed
    from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer

    mix = Fixed({"brief": 0.3, "as": 2.0})
    settings = {"chat_template_kwargs": {"persona": "cat", "mood": "calm"}}
    subject = grpo_trainer(ConstrainedGRPOTrainer, model, prompts, tmp_path, {**TRAIN, **settings}, objective=mix)
    tokenizer = subject.processing_class
    tokenizer.chat_template = "{% if tools %}tools {% endif %}{{ persona }} {{ mood }} {{ messages[0]['content'] }}"
    subject.model.eval()
    prompt = [{"role": "user", "content": "say a"}]
    rows = [{"prompt": prompt, "tools": [{"name": "weather"}], "chat_template_kwargs": None},
            {"prompt": prompt, "tools": None, "chat_template_kwargs": {"persona": "dog"}}]  # fmt: skip
    rollout = subject._generate_and_score_completions(
        [row for row in rows for _ in range(subject.num_generations_eval)]
    )
    asked = [ids[mask.bool()] for ids, mask in zip(rollout["prompt_ids"], rollout["prompt_mask"], strict=True)]
    assert [tokenizer.decode(ids) for ids in (asked[0], asked[-1])] == ["tools cat calm say a", "dog calm say a"]


@pytest.mark.parametrize("kind", ["grpo", "ppo"])
def test_a_proximal_step_is_of_the_advantages_that_the_multipliers_mix(kind, model, prompts, tmp_path):
    """At the policy that sampled its gradient is the clipped loss's, and away from there that of the formula."""
    from trimtab.pipelines.algorithms.advantages import CriticSettings
    from trimtab.pipelines.algorithms.objectives import Fixed
    from trimtab.pipelines.algorithms.target_surrogates import Proximal
    from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer
    from trimtab.pipelines.trainers.constrained_ppo import ConstrainedPPOTrainer

    trainers = {"grpo": (ConstrainedGRPOTrainer, {"sequence_kl": True}),
                "ppo": (ConstrainedPPOTrainer, {"critics": CriticSettings()})}  # fmt: skip
    cls, extra = trainers[kind]
    args = {**TRAIN, "loss_type": "grpo", "num_iterations": 2}
    objective, held = Fixed({"brief": 2.0, "as": -0.5}), Proximal(0.2, "squared")
    subject = grpo_trainer(cls, model, prompts, tmp_path, args, objective=objective, proximal=held, **extra)
    batch = first_batch(subject, 8)
    mask, head = batch["completion_mask"].bool(), subject.model.lm_head.weight

    def gradient():
        return torch.autograd.grad(subject.compute_loss(subject.model, batch), head)[0]

    at_start = gradient()
    subject.proximal = None
    torch.testing.assert_close(at_start, gradient(), rtol=1e-4, atol=1e-7)
    subject.proximal = held
    with torch.no_grad():
        head.add_(torch.randn(head.shape, generator=torch.Generator().manual_seed(0)))
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    seen = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    logits = subject.model(ids, attention_mask=seen).logits[:, -mask.shape[1] - 1 : -1]
    now = logits.log_softmax(-1).gather(2, batch["completion_ids"].unsqueeze(2)).squeeze(2)
    log_ratio = (now - batch["old_per_token_logps"]) * mask
    assert log_ratio.abs().max() > 0.3, "beyond the clip"
    of_tokens = -subject._mixed(batch)[0] * log_ratio + log_ratio**2 / (2 * 0.2)
    wanted = ((of_tokens * mask).sum(1) / mask.sum(1)).mean()
    torch.testing.assert_close(gradient(), torch.autograd.grad(wanted, head)[0], rtol=1e-3, atol=1e-6)


def test_padding_at_the_end_is_left_out_and_changes_nothing():
    from trimtab.pipelines.trainers.rollouts import trimmed

    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]])
    batch = {
        "completion_mask": mask,
        "completion_ids": mask.clone(),
        "ref_per_token_logps": mask.float(),
        "prompt_ids": torch.ones(2, 4),
        "advantages_by_reward": torch.ones(2, 4),
        "advantages": torch.ones(2),
    }
    shorter = trimmed(batch)
    for key in ("completion_mask", "completion_ids", "ref_per_token_logps"):
        assert torch.equal(shorter[key], batch[key][:, :2])
    assert shorter["prompt_ids"].shape == shorter["advantages_by_reward"].shape == (2, 4)


def test_multipliers_move_while_thresholds_are_missed_and_all_is_logged(ran):
    rows = logged(ran["constrained"])
    assert len(rows) == 7
    for name, threshold in (("brief", 0.5), ("as", 0.4)):
        assert rows[0][f"train/multipliers/{name}"] == 0  # xi begins at 0
        for row in rows:
            missing = threshold - row[f"train/rewards/{name}/mean"]
            assert row[f"train/violations/{name}"] == pytest.approx(missing, abs=1e-6)
        multipliers = [row[f"train/multipliers/{name}"] for row in rows]
        moved = [after - before for before, after in pairwise(multipliers)]
        assert moved[0] * rows[0][f"train/violations/{name}"] > 0
        s = {n: rows[-1][f"train/multipliers/{n}"] for n in ("brief", "as")}
        assert rows[-1][f"train/lambda/{name}"] == pytest.approx(s[name] / (2 - sum(s.values())))
    assert all(0 <= row[f"train/rewards/{name}/flat"] <= 1 for row in rows for name in REWARDS)
    page = (ran["report"].output / "report.html").read_text()
    for title in ("brief and its threshold", "as and its threshold", "Multipliers"):
        assert title in page


def test_a_checkpoint_without_its_multipliers_is_refused(model, prompts, tmp_path, ran, capsys):
    write_recipe(tmp_path, constrained(model, prompts), output_dir=str(tmp_path / "runs"))
    again = resumed(tmp_path, ran["constrained"], 7)
    folder = again.dir / "checkpoints" / "checkpoint-7"
    (folder / "objective.json").unlink()
    complete = json.loads((folder / "complete.json").read_text())
    complete["files"].pop("objective.json")
    (folder / "complete.json").write_text(json.dumps(complete))
    assert runner.train(str(tmp_path / "recipe.yaml")) == 1
    assert "without its multipliers" in capsys.readouterr().err


def test_another_threshold_makes_only_what_follows_pending(model, prompts, tmp_path):
    sample = {"model": {"model_name_or_path": model}, "prompts": prompts, "num_generations": 2}
    stages = {"sample": sample, **constrained(model, prompts), "report": {}}
    recipe = str(write_recipe(tmp_path, stages))
    before = Recipe.load(recipe).steps
    after = Recipe.load(recipe, ["stages.constrained.rewards.as.threshold=0.6"]).steps
    changed = [a.name for a, b in zip(before, after, strict=True) if a.fingerprint != b.fingerprint]
    assert changed == ["constrained", "report"]


@pytest.mark.parametrize(("change", "message"), [
    ({"train": {"beta": 0.0}}, "stages.constrained.train.beta: is 0, trl's default"),
    ({"method": "fixed", "rewards": {"as": {**REWARDS["as"], "constraint": "equal"}}}, "mu and xi leave a choice"),
    ({"rewards": {"as": {"kind": "pattern", "regex": "a"}}}, "no reward has a `threshold`"),
    ({"method": "all", "rewards": {"as": {"kind": "pattern", "regex": "a"}}}, "as.threshold: `method: all` needs"),
    ({"rewards": {"as": {**REWARDS["as"], "treshold": 1}}}, "did you mean 'threshold'"),
    ({"multipliers": {"momentum": 1.5}}, "stages.constrained.multipliers: momentum must be"),
    ({"multipliers": {"parametrization": "log"}}, "never negative"),
    ({"train": {"reward_weights": [1.0, 2.0]}}, "use `weight` in the reward's block"),
    ({"target_kl": -1.0}, "stages.constrained.target_kl: must be above 0"),
    ({"train": {"use_bias_correction_kl": False}}, "use `kl: token`, which has the KL in the loss"),
    ({"trainer": "ppo", "kl": "token"}, "stages.constrained.kl: `trainer: ppo` has a critic for the KL"),
])  # fmt: skip
def test_mistakes_are_named_before_anything_is_loaded(change, message, model, prompts, tmp_path, capsys):
    assert message in refused(tmp_path, constrained(model, prompts, **change), capsys)


def test_the_kl_coefficient_adapts_to_its_target(model, prompts, tmp_path):
    """Far below the target it falls by 2 % a step (Ziegler et al. 2019), and is found again on resumption."""
    steps = run_recipe(tmp_path, constrained(model, prompts, method="fixed", target_kl=10.0))
    coefficients = [row["train/kl_coefficient"] for row in logged(steps["constrained"])]
    assert coefficients == pytest.approx([0.1 * 0.98**step for step in range(7)])


@pytest.mark.parametrize("method", ["mu", "all", "sat", "fixed"])
def test_a_reward_can_be_watched_by_every_method(method, model, prompts, tmp_path):
    watched = {"watched": {"kind": "pattern", "regex": "b", "count": True, "weight": 0}}
    block = constrained(model, prompts, method=method, rewards=REWARDS | watched, train={"max_steps": 2})
    assert "train/rewards/watched/mean" in logged(run_recipe(tmp_path, block)["constrained"])[-1]


def test_evaluation_moves_no_multiplier(model, prompts, tmp_path, ran):
    options = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 8}
    steps = run_recipe(
        tmp_path, constrained(model, prompts, eval_data=prompts, audit={"overlap": "warn"}, train=options)
    )
    metrics = metrics_of(steps["constrained"])
    assert "eval/rewards/brief/mean" in metrics
    without, evaluated = (logged(run["constrained"])[1] for run in (ran, steps))  # before the first evaluation
    assert without["train/multipliers/as"] == evaluated["train/multipliers/as"]
