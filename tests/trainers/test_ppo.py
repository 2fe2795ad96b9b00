"""Critics: advantages against a reference, known problems learned to their optimum, exact resumption, LoRA."""

import numpy as np
import pytest
import torch
from constrained_runs import REWARDS, SETTINGS, TRAIN, constrained, logged, resumed, run_again
from launches import TWO, trained, weights
from run_steps import refused, run_recipe, write_recipe
from safetensors.torch import load_file
from tiny_trainers import first_batch, grpo_trainer

from trimtab.pipelines.algorithms.advantages import gae, value_errors
from trimtab.pipelines.recording import artifacts

CRITICS = {"learning_rate": 1e-2}


def ppo(model, prompts, **options):
    return constrained(model, prompts, trainer="ppo", **{"critics": CRITICS, **options})


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.99, 0.95), (0.9, 0.0)])
def test_gae_is_the_sum_of_discounted_temporal_differences(gamma, lam):
    """Against equation 16 of the paper written out, in float64, for rows of all lengths and three rewards."""
    generator = np.random.default_rng(0)
    lengths = [1, 2, 5, 7]
    mask = np.array([[t < length for t in range(7)] for length in lengths])
    rewards, values = (generator.normal(size=(4, 7, 3)) for _ in range(2))
    expected = np.zeros((4, 7, 3))
    for row, length in enumerate(lengths):
        for t in range(length):
            for later in range(t, length):
                after = values[row, later + 1] if later + 1 < length else 0.0
                delta = rewards[row, later] + gamma * after - values[row, later]
                expected[row, t] += (gamma * lam) ** (later - t) * delta
    advantages = gae(*map(torch.tensor, (rewards, values, mask)), gamma=gamma, lam=lam)
    np.testing.assert_allclose(advantages.numpy(), expected, atol=1e-12)


def test_a_clipped_value_no_longer_learns_towards_its_return():
    values = torch.tensor([0.1, 0.5, 2.0], requires_grad=True)
    value_errors(values, torch.zeros(3), torch.ones(3), clip=0.2).sum().backward()
    assert values.grad.tolist() == pytest.approx([-0.9, 0.0, 1.0])


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_from_every_step_a_run_ends_with_equal_weights_critics_and_multipliers(setting, model, prompts, tmp_path):
    options = {**SETTINGS[setting], "max_steps": 7, "save_total_limit": 20}
    block = ppo(model, prompts, train=options, critics={**CRITICS, "trunk": "shared", "warmup_steps": 2})
    first = tmp_path / "undisturbed"
    first.mkdir()
    whole = run_recipe(first, block)["constrained"]
    for at in (1, 3, 4, 6):
        again = run_again(tmp_path, block, whole, at)
        for file in ("model.safetensors", "critic/model.safetensors"):
            hashes = [artifacts.read_done(step.dir)["files"][file]["sha256"] for step in (whole, again)]
            assert hashes[0] == hashes[1], f"{file} from step {at}"
        last = [step.dir / "checkpoints" / "checkpoint-7" / "objective.json" for step in (whole, again)]
        assert last[0].read_text() == last[1].read_text()


def test_the_artifact_is_a_plain_model_with_its_critics_beside_it(model, prompts, tmp_path):
    from transformers import AutoModelForCausalLM

    step = run_recipe(tmp_path, ppo(model, prompts))["constrained"]
    policy, start = load_file(step.output / "model.safetensors"), load_file(f"{model}/model.safetensors")
    assert policy.keys() == start.keys()
    assert any(not torch.equal(policy[name], start[name]) for name in start)
    critic = load_file(step.output / "critic" / "model.safetensors")
    assert critic["heads.weight"].shape == (len(REWARDS) + 1, 16)
    assert any(name.startswith("trunk.") for name in critic)
    AutoModelForCausalLM.from_pretrained(step.output)
    rows = logged(step)
    assert {"train/critics/brief/explained", "train/critics/kl/explained", "train/kl", "train/multipliers/as"} <= set(
        rows[-1]
    )


@pytest.mark.parametrize("scale_kl", [False, True])
def test_advantages_have_one_scale_before_they_are_mixed(scale_kl, model, prompts, tmp_path):
    from trimtab.pipelines.algorithms.advantages import CriticSettings
    from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers
    from trimtab.pipelines.algorithms.objectives import Lagrangian
    from trimtab.pipelines.trainers.constrained_ppo import ConstrainedPPOTrainer

    constraints = {"brief": Constraint(0.5, "equal"), "as": Constraint(0.4, "equal")}
    train = {**TRAIN, "scale_rewards": "batch", "per_device_train_batch_size": 20, "max_completion_length": 6}
    extra = {"critics": CriticSettings(scale_kl=scale_kl), "objective": Lagrangian({}, Multipliers(constraints))}
    subject = grpo_trainer(ConstrainedPPOTrainer, model, prompts, tmp_path, train, **extra)
    with torch.no_grad():
        subject.model.lm_head.weight.mul_(1.5)  # so that there is a KL to the start
    batch = first_batch(subject, 20)
    tokens = batch["completion_mask"].bool()
    for column in range(2):
        advantages = batch["advantages_by_reward"][..., column][tokens]
        assert advantages.mean() == pytest.approx(0, abs=1e-5)
        assert advantages.std(correction=0) == pytest.approx(1, abs=1e-4)
    kl = batch["kl_advantages"][tokens]
    assert (abs(float(kl.std(correction=0)) - 1) < 1e-4) == scale_kl
    mixed, coefficient = subject._mixed(batch)
    assert coefficient == 0  # the KL is no term of the loss
    expected = 2 * (1.0 if scale_kl else 0.1) * batch["kl_advantages"]  # xi begins with multipliers of 0, N = 2
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("trunk", ["separate", "shared"])
def test_while_critics_warm_up_the_policy_and_the_multipliers_stay(trunk, model, prompts, tmp_path):
    block = ppo(model, prompts, critics={**CRITICS, "trunk": trunk, "warmup_steps": 7})
    step = run_recipe(tmp_path, block)["constrained"]
    policy, start = load_file(step.output / "model.safetensors"), load_file(f"{model}/model.safetensors")
    assert all(torch.equal(policy[name], start[name]) for name in start)
    assert load_file(step.output / "critic" / "model.safetensors")["heads.weight"].abs().max() > 0
    assert {row["train/multipliers/as"] for row in logged(step)} == {0}


def test_lora_trains_adapters_and_whole_heads_and_resumes_exactly(model, prompts, tmp_path):
    block = ppo(model, prompts, critics={**CRITICS, "trunk": "shared"})
    block["constrained"]["model"] |= {"use_peft": True, "lora_target_modules": "all-linear"}
    whole = run_recipe(tmp_path, block)["constrained"]
    assert (whole.dir / "adapter" / "critic" / "model.safetensors").exists()
    again = run_again(tmp_path, block, whole, 6)
    assert weights(again) == weights(whole)


@pytest.mark.slow
def test_two_ranks_resume_exactly_and_agree_on_the_multipliers(model, prompts, tmp_path):
    options = {**SETTINGS["buffered"], "per_device_train_batch_size": 4, "max_steps": 7, "save_total_limit": 20}
    block = ppo(model, prompts, train=options)
    whole = trained(write_recipe(tmp_path, block, wandb=False))["constrained"]
    assert artifacts.read_done(whole.dir)["world_size"] == 2
    folder = tmp_path / "again"
    folder.mkdir()
    path = write_recipe(folder, block, wandb=False, output_dir=str(folder / "runs"))
    again = resumed(folder, whole, 4, TWO)
    trained(path)
    for file in ("model.safetensors", "critic/model.safetensors"):
        assert len({artifacts.read_done(step.dir)["files"][file]["sha256"] for step in (whole, again)}) == 1
    last = [step.dir / "checkpoints" / "checkpoint-7" / "objective.json" for step in (whole, again)]
    assert last[0].read_text() == last[1].read_text()


def test_the_kl_coefficient_adapts_once_for_a_rollout(model, prompts, tmp_path):
    block = ppo(model, prompts, method="fixed", target_kl=10.0, train={"num_iterations": 2, "steps_per_generation": 1})
    coefficients = [row["train/kl_coefficient"] for row in logged(run_recipe(tmp_path, block)["constrained"])]
    assert coefficients == pytest.approx([0.1 * 0.98 ** ((step + 1) // 2) for step in range(7)])


def test_an_abstaining_reward_leaves_its_completions_out(model, prompts, tmp_path):
    (tmp_path / "some.py").write_text(
        "def some(completions, **columns):\n    return [None if i % 2 else 1.0 + i for i in range(len(completions))]\n"
    )
    rewards = {"some": {"kind": "trl_function", "path": str(tmp_path / "some.py") + ":some", "threshold": 0.5}}
    step = run_recipe(tmp_path, ppo(model, prompts, rewards=rewards))["constrained"]
    tensors = load_file(step.output / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in tensors.values())


@pytest.mark.parametrize(("change", "message"), [
    ({"model": {"use_peft": True}}, "critics.trunk: LoRA would train a whole second model"),
    ({"critics": {"lam": 1.5}}, "stages.constrained.critics: lam must be from 0 to 1"),
    ({"critics": {"trunc": "shared"}}, "did you mean 'trunk'"),
    ({"optimizer": "igt"}, "optimizer: igt divides by the norm of all gradients, in which critics' would drown the"),
    ({"train": {"use_vllm": True}}, "which vLLM refuses by name"),
])  # fmt: skip
def test_mistakes(change, message, model, prompts, tmp_path, capsys):
    block = ppo(model, prompts, **{key: value for key, value in change.items() if key != "model"})
    block["constrained"]["model"] |= change.get("model", {})
    assert message in refused(tmp_path, block, capsys)


LEARNING = {
    "num_generations": 4,
    "per_device_train_batch_size": 256,
    "learning_rate": 1e-2,
    "max_steps": 250,
    "scale_rewards": "none",
    "save_strategy": "no",
    "beta": 0.2,
    "steps_per_generation": 1,
    "num_iterations": 2,
    "lr_scheduler_type": "cosine",
    "logging_steps": 10,
    "gradient_checkpointing": False,
}
TOKENS = 2  # of a completion
REWARD = "1.0 * (len(text) > 1 and (text[0] in 'aeiou') == (text[-1] not in 'aeiou'))"


@pytest.mark.slow
def test_ppo_comes_to_the_exact_optimum(model, tmp_path):
    """max E[r] - beta KL(pi, pi_0) is beta log E_{pi_0} exp(r / beta): by enumeration of all completions."""
    prompt = [{"role": "user", "content": "say a"}]
    (tmp_path / "one.jsonl").write_text('{"prompt": [{"role": "user", "content": "say a"}]}\n' * 64)
    (tmp_path / "judge.py").write_text(
        "def text_of(c):\n    return c[0]['content'] if isinstance(c, list) else c\n"
        "def value(text):\n    return float(" + REWARD + ") if text else 0.0\n"
        "def judge(completions, **columns):\n    return [value(text_of(c)) for c in completions]\n"
    )
    block = {
        "model": {"model_name_or_path": model},
        "data": str(tmp_path / "one.jsonl"),
        "rewards": {"judge": {"kind": "trl_function", "path": str(tmp_path / "judge.py") + ":judge"}},
        "critics": {"learning_rate": 2e-2},
        "train": {**LEARNING, "max_completion_length": TOKENS},
    }
    step = run_recipe(tmp_path, {"ppo": block})["ppo"]
    start, learned = (completions(path, prompt) for path in (model, str(step.output)))
    scope: dict = {}
    exec((tmp_path / "judge.py").read_text(), scope)
    rewards = torch.tensor([scope["value"](text) for text in start[1]], dtype=torch.float64)
    beta = LEARNING["beta"]
    optimum = beta * torch.logsumexp(start[0] + rewards / beta, 0)
    before = (start[0].exp() * rewards).sum()
    policy = learned[0].exp()
    reached = (policy * (rewards - beta * (learned[0] - start[0]))).sum()
    assert optimum - before > 0.1
    assert float(reached) == pytest.approx(float(optimum), abs=0.05 * float(optimum - before))


@torch.no_grad()
def completions(path, prompt):
    """(log-probability, text) of every completion of at most two tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    ids = torch.tensor(
        [tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]]
    )
    first = policy(ids).logits[0, -1].double().log_softmax(-1)
    size, stop = len(first), tokenizer.eos_token_id
    rows = torch.cat([ids.expand(size, -1), torch.arange(size)[:, None]], dim=1)
    second = policy(rows).logits[:, -1].double().log_softmax(-1)
    pairs = [(a, b) for a in range(size) for b in range(size) if a != stop]
    logps = torch.cat([first[stop][None], (first[:, None] + second)[[a for a, _ in pairs], [b for _, b in pairs]]])
    return logps, ["", *(tokenizer.decode(pair, skip_special_tokens=True) for pair in pairs)]
