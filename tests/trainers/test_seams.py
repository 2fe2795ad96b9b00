"""The contract with other packages holds: every entry against the smallest real steps that there are."""

import inspect
from functools import partial
from importlib.util import find_spec

import pytest
import torch
import trl
from datasets import Dataset
from tiny_trainers import ONE_STEP
from transformers import AutoModelForCausalLM
from upstream_watch import Watch, find, looks_up, parameters

from trimtab.pipelines.trainers.seams import contract
from trimtab.pipelines.trainers.seams.contract import CONTRACT, Entry
from trimtab.pipelines.trainers.seams.trl import rewrite_logs, token_logps, use_lean_head_on_cpu


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
        "trl.DPOTrainer": "dpo",
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
    if entry.member == "_n_gpu":
        args = get("sft").trainer.args
        return "_n_gpu" in vars(args) and args.n_gpu == args._n_gpu
    if entry.member == "base_model":
        trainer = get("ppo")
        with trainer.critic_values.recording() as values:
            token_logps(trainer.model, *tokens())
        return [tuple(value.shape) for value in values] == [(1, 6, 3)]
    if entry.member == "_attn_implementation":
        return get("ppo").model.config._attn_implementation == "sdpa"
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
