"""The contract with other packages holds: every entry against the smallest real steps that there are."""

import inspect
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
import trl
from conftest import PAIR_ROWS, SFT_ROWS
from constrained_runs import TRAIN
from datasets import Dataset
from tiny_trainers import CPU, grpo_trainer, list_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig
from upstream_watch import Reads, Watch, find, looks_up, parameters, watched

from trimtab.pipelines.trainers.seams import contract
from trimtab.pipelines.trainers.seams.contract import CONTRACT, Entry
from trimtab.pipelines.trainers.seams.trl import rewrite_logs, token_logps, use_lean_head_on_cpu

ONE_STEP = {**CPU, "max_steps": 1, "logging_steps": 1, "save_strategy": "no", "per_device_train_batch_size": 2}
EXPERTS = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 2,
}
LIST = {"prompt_ids": [5, 6], "completion_ids": [[7, 8], [9]], "ref_logps": [-1.0, -2.0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("seams")


def trained(trainer_class, config, model, rows, folder):
    """A trainer of trl's, watched, after one step on the rows, and the devices for which it chose its fused head."""
    cls, devices = watched(trainer_class), []
    with pytest.MonkeyPatch.context() as patch:
        head = find("trl.trainer.utils")
        patch.setattr(head, "_use_triton", lambda device: devices.append(device))
        args = config(str(folder / trainer_class.__name__), **ONE_STEP)
        trainer = cls(model=model, args=args, train_dataset=Dataset.from_list(rows))
        trainer.train()
    return SimpleNamespace(trainer=trainer, watch=cls.watch, devices=devices)


@pytest.fixture(scope="module")
def sft(model, folder):
    return trained(trl.SFTTrainer, trl.SFTConfig, model, SFT_ROWS, folder)


@pytest.fixture(scope="module")
def reward(model, folder):
    return trained(trl.RewardTrainer, trl.RewardConfig, model, PAIR_ROWS, folder)


@pytest.fixture(scope="module")
def dpo(model, folder):
    return trained(trl.DPOTrainer, trl.DPOConfig, model, PAIR_ROWS, folder)


@pytest.fixture(scope="module")
def grpo(model, prompts, folder):
    """trl's GRPO, watched: a step, its checkpoint, and another step from there; a rollout is for two of them."""
    seen = SimpleNamespace(rollout=set(), batch=set(), forward=set(), metrics=set())

    class Noted(trl.GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            seen.rollout |= output.keys()
            return output

        def compute_loss(self, model, inputs, *args, **kwargs):
            batch = Reads(inputs)
            loss = super().compute_loss(model, batch, *args, **kwargs)
            seen.batch |= batch.asked
            seen.metrics |= self._metrics.keys() | self._metrics["train"].keys()
            return loss

    def note(module, args, kwargs):
        seen.forward |= kwargs.keys()

    cls, config = watched(Noted), {**TRAIN, "num_iterations": 2, "save_steps": 1, "save_strategy": "steps"}
    grpo_trainer(cls, model, prompts, folder / "grpo", {**config, "max_steps": 1}).train()
    trainer = grpo_trainer(cls, model, prompts, folder / "grpo", {**config, "max_steps": 2})
    trainer.model.register_forward_pre_hook(note, with_kwargs=True)
    trainer.train(resume_from_checkpoint=str(folder / "grpo" / "checkpoint-1"))
    return SimpleNamespace(trainer=trainer, watch=cls.watch, seen=seen)


@pytest.fixture(scope="module")
def ppo(model, prompts, folder):
    """Our own trainer with critics, after a step."""
    from trimtab.pipelines.algorithms.advantages import CriticSettings
    from trimtab.pipelines.algorithms.objectives import Fixed
    from trimtab.pipelines.trainers.constrained_ppo import ConstrainedPPOTrainer

    extra = {"critics": CriticSettings(trunk="shared"), "objective": Fixed({"brief": 1.0, "as": 1.0})}
    train = {**TRAIN, "max_steps": 1, "save_strategy": "no"}
    trainer = grpo_trainer(ConstrainedPPOTrainer, model, prompts, folder / "ppo", train, **extra)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def experts(model, folder):
    """A ListTrainer on a mixture of experts, after a step."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    config = MixtralConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **EXPERTS)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "experts")
    tokenizer.save_pretrained(folder / "experts")
    trainer = list_trainer(str(folder / "experts"), [LIST] * 4, folder / "lists", **ONE_STEP)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def adapters(model):
    from peft import LoraConfig, get_peft_model

    policy = AutoModelForCausalLM.from_pretrained(model)
    return get_peft_model(policy, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))


@pytest.mark.parametrize("entry", CONTRACT, ids=str)
def test_the_contract_holds(entry: Entry, request):
    if entry.owner.startswith(("vllm", "deepspeed")) and find_spec(entry.owner.partition(".")[0]) is None:
        pytest.skip("it is not installed")
    checks = {
        "method": function_holds,
        "function": function_holds,
        "class": function_holds,
        "attribute": attribute_holds,
        "key": key_holds,
        "keyword": keyword_holds,
        "global": global_holds,
        "variable": variable_holds,
        "file": file_holds,
    }
    assert checks[entry.kind](entry, request.getfixturevalue), (
        f"{entry.owner} has moved its {entry.kind} {entry.member} (which is one that {entry.use} here"
        f"{': ' + entry.note if entry.note else ''}). Look at {', '.join(entry.files)}"
    )


def watch_of(owner: str, get) -> Watch | None:
    """What upstream's code did with a trainer's members in its steps."""
    fixtures = {
        "trl.GRPOTrainer": "grpo",
        "trl.SFTTrainer": "sft",
        "trl.RewardTrainer": "reward",
        "transformers.Trainer": "grpo",
    }
    return get(fixtures[owner]).watch if owner in fixtures else None


def function_holds(entry: Entry, get) -> bool:
    function = find(f"{entry.owner}.{entry.member}")
    if function is None:
        return False
    if entry.use == "reads":  # a class that we only derive from
        return inspect.isclass(function)
    names, watch = parameters(function), watch_of(entry.owner, get)
    if entry.use == "calls":
        return names[: len(entry.parameters)] == entry.parameters
    if entry.use == "patches":
        return names == entry.parameters and looks_up(inspect.getmodule(function), entry.member)
    called = watch is not None and entry.member in watch.read | watch.read_while_made
    return names == entry.parameters and called


def attribute_holds(entry: Entry, get) -> bool:
    if entry.owner.startswith("vllm"):
        engine = find("vllm.LLM" if entry.owner == "vllm.LLM" else "vllm.v1.engine.llm_engine")
        return f"self.{entry.member} = " in inspect.getsource(engine)
    if watch := watch_of(entry.owner, get):
        return entry.member in (watch.read if entry.use == "writes" else watch.set)
    if entry.owner == contract.HEAD:
        ids = torch.arange(6)[None] + 5
        subject = get("experts").model
        output = subject(input_ids=ids, labels=ids, fused_lm_head=True)
        shape = {"log_probs": (1, 5), "aux_loss": ()}[entry.member]
        return getattr(getattr(output, entry.member, None), "shape", None) == shape
    if entry.member == "base_model":
        trainer = get("ppo")
        with trainer.critic_values.recording() as values:
            token_logps(trainer.model, *tokens())
        return [tuple(value.shape) for value in values] == [(1, 6, 3)]
    if entry.member == "_name_or_path":
        return get("ppo").model.config._name_or_path == get("model")
    owners = {
        "trl.trainer.utils.RepeatSampler": lambda: get("grpo").trainer._get_train_sampler(),
        "accelerate.optimizer.AcceleratedOptimizer": lambda: get("sft").trainer.optimizer,
        "peft.PeftModel": lambda: get("adapters"),
    }
    holder = owners[entry.owner]()
    return isinstance(holder, find(entry.owner)) and getattr(holder, entry.member, None) is not None


def tokens() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, their attention mask, and which of them are learned."""
    ids = torch.arange(6)[None] + 5
    return ids, torch.ones_like(ids), torch.ones_like(ids).bool()


def key_holds(entry: Entry, get) -> bool:
    keys = {
        contract.ROLLOUT: lambda: get("grpo").seen.rollout,
        contract.BATCH: lambda: get("grpo").seen.batch,
        "trl.GRPOTrainer._logs": lambda: get("grpo").trainer._logs,
        "trl.GRPOTrainer._metrics": lambda: get("grpo").seen.metrics,
        "trl.RewardTrainer._metrics": lambda: get("reward").trainer._metrics,
        "peft.PeftModel.peft_config": lambda: get("adapters").peft_config,
        "deepspeed.ops.__compatible_ops__": lambda: find("deepspeed.ops.__compatible_ops__"),
    }
    return entry.member in keys[entry.owner]()


def keyword_holds(entry: Entry, get) -> bool:
    if entry.owner == contract.HEAD:
        return entry.member in get("grpo").seen.forward
    if entry.member not in parameters(find("transformers.utils.hub.cached_files")):
        return False
    look = partial(find(entry.owner), get("model"), "no such file")
    return look(**{entry.member: False}) is None if "missing" in entry.member else True


def global_holds(entry: Entry, get) -> bool:
    if entry.owner == "deepspeed.ops":  # the code that builds for the CPU asks for it there
        return looks_up(find("deepspeed.comm.torch"), entry.member)
    module = find(entry.owner)
    if not hasattr(module, entry.member) or not looks_up(module, entry.member):
        return False
    if entry.member != "_use_triton":
        return True
    return parameters(module._use_triton) == entry.parameters and bool(get("sft").devices and get("dpo").devices)


def variable_holds(entry: Entry, get) -> bool:
    return entry.member in inspect.getsource(find(entry.owner))


def file_holds(entry: Entry, get) -> bool:
    get("grpo")
    checkpoint = get("folder") / "grpo" / "checkpoint-1"
    return checkpoint.is_dir() if entry.member == checkpoint.name else (checkpoint / entry.member).is_file()


def test_advantages_may_be_of_completions_or_of_tokens(grpo):
    """What PPO gives: trl's loss with one advantage for each token is its loss with one for each completion."""
    trainer = grpo.trainer
    batch = trainer._buffered_inputs[0]
    of_completions = trainer.compute_loss(trainer.model, batch)
    columns = batch["completion_mask"].shape[1]
    of_tokens = {**batch, "advantages": batch["advantages"][:, None].expand(-1, columns)}
    assert batch["advantages"].abs().max() > 0
    assert torch.equal(trainer.compute_loss(trainer.model, of_tokens), of_completions)


def test_what_is_added_to_metrics_is_logged(ppo, model, folder):
    from trimtab.pipelines.trainers.listwise_reward import ListwiseRewardTrainer

    rows = [{"prompt": "say a ", "completions": ["a b", "a", ""]}] * 4
    args = trl.RewardConfig(str(folder / "rankings"), **ONE_STEP)
    rankings = ListwiseRewardTrainer(model=model, args=args, train_dataset=Dataset.from_list(rows))
    rankings.train()
    assert {"accuracy", "mean_reward"} <= rankings.state.log_history[0].keys()
    assert {"kl", "kl_coefficient", "critics/loss"} <= ppo.state.log_history[0].keys()


def test_a_mixture_of_experts_has_a_router_loss(experts):
    assert experts.aux_loss_enabled
    assert experts.router_aux_loss_coef > 0
    assert experts.state.log_history[0]["loss"] > 0
    logps, router_loss = token_logps(experts.model, *tokens())
    assert logps.shape == (1, 6)
    assert router_loss.item() > 0


def test_the_lean_head_gives_the_same_loss_and_gradient(model, monkeypatch):
    """The fused head's outputs, with prompt and padding masked, as trl computes them and as we let it."""
    utils, kernel = find("trl.trainer.utils"), find("trl.kernels.chunked_logprob")

    def outcome():
        policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        utils.add_fused_lm_head(policy, outputs=("log_probs", "entropy"))
        ids = torch.randint(5, 250, (3, 300), generator=torch.Generator().manual_seed(0))
        labels = ids.clone()
        labels[:, :7] = -100
        labels[1, 200:] = -100
        out = policy(input_ids=ids, labels=labels, fused_lm_head=True)
        out.loss.backward()
        return out.loss, out.log_probs, out.entropy, policy.get_input_embeddings().weight.grad

    monkeypatch.setattr(utils, "_use_triton", kernel._use_triton)  # as trl has it
    monkeypatch.setattr(kernel, "TOKEN_CHUNK_SIZE", 4096)
    theirs = outcome()
    assert not utils._use_triton(torch.device("cpu"))
    use_lean_head_on_cpu()
    assert utils._use_triton(torch.device("cpu"))
    for ours, expected in zip(outcome(), theirs, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


def test_rewrite_logs():
    assert rewrite_logs({"loss": 1, "eval_loss": 2}) == {"train/loss": 1, "eval/loss": 2}
