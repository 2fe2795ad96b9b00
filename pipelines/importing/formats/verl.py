"""verl's launch lines and configurations: the dotted keys of its trainers `main_ppo` and `sft_trainer`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trimtab.pipelines.importing import arguments, names, rewards, rows
from trimtab.pipelines.importing.draft import Draft
from trimtab.pipelines.importing.sources import Source

ACTOR = "actor_rollout_ref."
ESTIMATORS = {"gae": "ppo", "grpo": "grpo", "rloo": "rloo", "reinforce_plus_plus": "grpo", "remax": "grpo"}
RENAMES = {
    f"{ACTOR}actor.optim.lr": "train.learning_rate",
    f"{ACTOR}actor.optim.lr_warmup_steps_ratio": "train.warmup_steps",
    f"{ACTOR}actor.optim.lr_warmup_steps": "train.warmup_steps",
    f"{ACTOR}actor.optim.weight_decay": "train.weight_decay",
    f"{ACTOR}actor.clip_ratio": "train.epsilon",
    f"{ACTOR}actor.clip_ratio_low": "train.epsilon",
    f"{ACTOR}actor.clip_ratio_high": "train.epsilon_high",
    f"{ACTOR}actor.grad_clip": "train.max_grad_norm",
    f"{ACTOR}actor.ppo_epochs": "train.num_iterations",
    f"{ACTOR}model.enable_gradient_checkpointing": "train.gradient_checkpointing",
    f"{ACTOR}rollout.n": "train.num_generations",
    f"{ACTOR}rollout.temperature": "train.temperature",
    f"{ACTOR}rollout.top_p": "train.top_p",
    f"{ACTOR}rollout.gpu_memory_utilization": "train.vllm_gpu_memory_utilization",
    f"{ACTOR}rollout.tensor_model_parallel_size": "train.vllm_tensor_parallel_size",
    "data.max_response_length": "train.max_completion_length",
    "data.seed": "seed",
    "trainer.total_epochs": "train.num_train_epochs",
    "trainer.total_training_steps": "train.max_steps",
    "optim.lr": "train.learning_rate",
    "optim.weight_decay": "train.weight_decay",
    "optim.lr_warmup_steps_ratio": "train.warmup_steps",
    "optim.clip_grad": "train.max_grad_norm",
    "data.max_length": "train.max_length",
    "data.micro_batch_size": "train.per_device_train_batch_size",
    "data.micro_batch_size_per_gpu": "train.per_device_train_batch_size",
    "model.enable_gradient_checkpointing": "train.gradient_checkpointing",
}
MODES = {  # of losses' means over tokens
    "token-mean": "dapo", "seq-mean-token-sum": "dr_grpo", "seq-mean-token-mean": "grpo",
    "seq-mean-token-sum-norm": "dr_grpo",
}  # fmt: skip
CRITIC = "`critics` in a stage ppo says how critics are trained"
REASONS = (
    (r"critic\.", CRITIC),
    (r"algorithm\.(gamma|lam)$", CRITIC),
    (r".*(fsdp|megatron|offload|parallel|micro_batch|dynamic_bsz|max_token_len|load_format|wrap_policy|enforce_eager"
     r"|free_cache_engine|max_num_batched|max_num_seqs|nnodes|n_gpus_per_node|use_remove_padding|use_fused_kernels"
     r"|ray_kwargs|ray_init|checkpoint_engine|device|strategy|balance_batch|liger|use_torch_compile|enable_chunked\w*"
     r"|rollout\.(name|mode|dtype|engine_kwargs.*|layered_summon|disable_log_stats|ignore_eos|agent.*)|resource_pool)",
     arguments.PROCESS),
    (r"trainer\.(logger|project_name|experiment_name|log_val_generations)", "`wandb: {project: ...}` in the recipe"),
    (r"trainer\.(save_freq|test_freq|val_before_train|val_only|default_\w+|resume_\w+|max_\w+ckpt\w*|critic_warmup"
     r"|rollout_data_dir|validation_data_dir|esi\w*)", "checkpoints are `train.save_steps`; steps are resumed by "
     "themselves, and a stage `evaluate` measures"),
    (r"data\.(val_batch_size|shuffle|return_\w+|filter_overlong\w*|truncation|prompt_key|image_key|trust_remote_code"
     r"|reward_fn_key|tokenizer|dataloader\w*|custom_cls.*|sampler.*|apply_chat_template_kwargs.*|gen_batch_size"
     r"|need_tools\w*|tool_config\w*|balance_dp_token|chat_template|response_\w+|prompt_dict\w*|multiturn.*|train_max"
     r"_samples|val_max_samples|val_files)", "rows are read, shuffled and rendered in one way (docs/data.md)"),
    (r".*(val_kwargs|multi_turn|tool_kwargs|interaction)", "a stage `evaluate` samples with its own settings; tools "
     "are `tools` of a stage grpo"),
    (r"(reward_model|reward|custom_reward_function|sandbox_fusion)", "an option of a reward: it stands in its block"),
    (r"algorithm\.|.*\.(kl_loss_type|clip_ratio_c|loss_agg_mode|policy_loss.*|entropy_checkpointing|shuffle"
     r"|entropy_from_logits\w*|calculate_log_probs|rollout_correction.*|checkpoint.*|profiler.*|router_replay.*)$",
     "TRL's config of the stage has its own keys for it, or none: docs/online-methods.md"),
    (r"(model|optim|trainer|data|engine|ulysses\w*|use_remove_padding)|actor_rollout_ref|global_profiler|hydra|config",
     "no counterpart: see what the stage takes in docs/stages.md"),
)  # fmt: skip


def recognises(source: Source) -> bool:
    """Whether a source calls verl, or has the blocks of its configuration."""
    return "verl." in source.command or any(key.startswith("actor_rollout_ref") for key in source.values)


def translate(source: Source) -> list[Draft]:
    """The one stage that it is: `sft`, or what `algorithm.adv_estimator` says."""
    flat = dict(_flat(source.values))
    is_sft = "sft_trainer" in source.command or not any(key.startswith(ACTOR) for key in flat)
    kind = "sft" if is_sft else ESTIMATORS.get(str(flat.get("algorithm.adv_estimator", "gae")), "grpo")
    draft = Draft.of(kind, source)
    draft.left = flat
    _model(draft)
    _data(draft)
    if not is_sft:
        _policy(draft)
        _kl(draft)
    _batch(draft)
    for key, to in RENAMES.items():
        if draft.look(key) is not None and draft.look(key) != -1:
            draft.rename(key, to)
    draft.drop_matching(REASONS)
    arguments.finish(draft)
    return [draft]


def _flat(values: Mapping[str, Any], place: str = "") -> list[tuple[str, Any]]:
    """Dotted keys, of a command line as they are and of YAML by its blocks."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        path = f"{place}{key}"
        pairs += _flat(value, f"{path}.") if isinstance(value, Mapping) and value else [(path, value)]
    return pairs


def _model(draft: Draft) -> None:
    keys = (f"{ACTOR}model.path", "model.partial_pretrain", "model.path")
    key = next((key for key in keys if draft.look(key) is not None), None)
    if key is None:
        draft.put("model.model_name_or_path", f"{names.YOURS}/model")
        draft.notes.append(f"no model is named: put one in the place of {names.YOURS}/model")
    else:
        arguments.first_model(draft, key)
    draft.put("train.bf16", True)
    for prefix in (f"{ACTOR}model.", "model."):
        if (draft.look(f"{prefix}lora_rank") or 0) > 0:
            draft.put("model.use_peft", True)
            draft.rename(f"{prefix}lora_rank", "model.lora_r")
            draft.put("model.lora_target_modules", "all-linear")
            if draft.look(f"{prefix}lora_alpha") is not None:
                draft.rename(f"{prefix}lora_alpha", "model.lora_alpha")
            modules = draft.look(f"{prefix}target_modules")
            if modules is not None:
                draft.rename(f"{prefix}target_modules", "model.lora_target_modules", modules)
            if draft.kind == "ppo":
                draft.put("critics.trunk", "shared")


def _data(draft: Draft) -> None:
    """Files that its own preparation has written: `prompt`, `data_source` and `reward_model.ground_truth` in a row."""
    for key, place in (("data.train_files", "data"), ("data.val_files", "eval_data")):
        listed = draft.look(key)
        if listed is None or (place == "eval_data" and draft.kind == "ppo"):
            continue
        listed = listed if isinstance(listed, list) else re.findall(r"[^\s,'\"\[\]]+", str(listed))
        entries = [rows.entry(draft, name) for name in listed] or [rows.entry(draft, "DATA")]
        draft.change(key, place, rows.block(entries), "the rows that verl's preparation has written")
    if "data" not in draft.block:
        draft.put("data", rows.entry(draft, "DATA"))
    columns = {"prompt": draft.look("data.prompt_key"), "completion": draft.look("data.response_key")}
    renamed = {to: name for to, name in columns.items() if isinstance(name, str) and name not in (to, "extra_info")}
    if draft.kind == "sft" and renamed and "datasets" not in draft.block["data"]:
        draft.block["data"]["columns"] = renamed
    rows.prompts(draft, "data.max_prompt_length")
    limit = draft.look("data.train_max_samples")
    if isinstance(limit, int) and limit > 0:
        draft.rename("data.train_max_samples", "data.max_rows")


def _policy(draft: Draft) -> None:
    """Its rewards: a model, a function in a file, or the built-in check of the answer."""
    blocks: dict[str, Any] = {}
    model = draft.look("reward_model.model.path", "reward.reward_model.model_path")
    enabled = draft.look("reward_model.enable", "reward.reward_model.enable")
    if model is not None and enabled is not False:
        blocks["reward_model"] = rewards.model(draft, model)
    for prefix in ("", "reward."):
        path = draft.look(f"{prefix}custom_reward_function.path")
        if path is not None:
            name = draft.look(f"{prefix}custom_reward_function.name") or "compute_score"
            place = str(path) if name == "compute_score" else f"{path}:{name}"
            blocks["function"] = rewards.function(draft, place, "verl_function")
            draft.settle(f"{prefix}custom_reward_function.path", "rewards", "a function as it is")
    if not blocks:
        blocks["right"] = {"kind": "math", "column": "ground_truth"}
        draft.notes.append(
            "verl scores by `data_source` with a function of its own; here answers are compared with the column "
            "`ground_truth`: write it beside `prompt`, out of `reward_model`"
        )
    for key in ("reward_model.model.path", "reward.reward_model.model_path"):
        if draft.look(key) is not None and "reward_model" in blocks:
            draft.settle(key, "rewards", "one block for each reward")
    draft.put("rewards", blocks)
    if draft.look("algorithm.adv_estimator") is not None:
        word = draft.look("algorithm.adv_estimator")
        draft.settle("algorithm.adv_estimator", "kind", f"{word}: the kind of the stage")


def _kl(draft: Draft) -> None:
    in_loss, in_reward = draft.look(f"{ACTOR}actor.use_kl_loss"), draft.look("algorithm.use_kl_in_reward")
    of_loss = draft.look(f"{ACTOR}actor.kl_loss_coef")
    for key in (f"{ACTOR}actor.kl_loss_coef", "algorithm.kl_ctrl.kl_coef"):
        used = of_loss is not None and in_loss is not False if key.endswith("loss_coef") else of_loss is None
        if draft.look(key) is not None and used and (in_reward is not False or key.endswith("loss_coef")):
            draft.rename(key, "train.beta")
        elif draft.look(key) is not None:
            draft.drop(key, "is switched off, or the other coefficient of the KL counts")
    for key in (f"{ACTOR}actor.use_kl_loss", "algorithm.use_kl_in_reward"):
        if key in draft.left:
            draft.drop(key, "`train.beta` is the coefficient of the KL, and 0 is without")
    if draft.look(f"{ACTOR}actor.entropy_coeff") is not None:
        draft.rename(f"{ACTOR}actor.entropy_coeff", "train.entropy_coef")
    mode = draft.look(f"{ACTOR}actor.loss_agg_mode")
    if mode in MODES and draft.kind == "grpo":
        draft.rename(f"{ACTOR}actor.loss_agg_mode", "train.loss_type", MODES[mode])
    if draft.look("algorithm.norm_adv_by_std_in_grpo") is False and draft.kind == "grpo":
        draft.rename("algorithm.norm_adv_by_std_in_grpo", "train.scale_rewards", "none")
    if draft.look(f"{ACTOR}rollout.name") == "vllm" and draft.kind == "grpo":
        draft.notes.append("answers come from transformers: `train: {use_vllm: true}` where vLLM is installed")


def _batch(draft: Draft) -> None:
    """Batches of prompts become batches of completions."""
    if draft.kind == "sft":
        if isinstance(draft.look("data.train_batch_size"), int):
            draft.rename("data.train_batch_size", "batch_size")
        return
    answers = draft.look(f"{ACTOR}rollout.n") or 1
    if answers < 2:
        answers = 2
        if f"{ACTOR}rollout.n" in draft.left:
            draft.change(f"{ACTOR}rollout.n", "train.num_generations", 2, "TRL samples two answers or more")
        else:
            draft.put("train.num_generations", 2)
    rollout, mini = draft.look("data.train_batch_size"), draft.look(f"{ACTOR}actor.ppo_mini_batch_size")
    size = mini if isinstance(mini, int) else rollout
    if isinstance(size, int):
        key = f"{ACTOR}actor.ppo_mini_batch_size" if size is mini else "data.train_batch_size"
        draft.change(key, "batch_size", size * answers, f"in completions: {size} prompts with {answers} each")
    if isinstance(mini, int) and isinstance(rollout, int):
        if rollout % mini == 0:
            why = f"in completions: {rollout} prompts with {answers} each"
            draft.change("data.train_batch_size", "train.generation_batch_size", rollout * answers, why)
        else:
            draft.drop("data.train_batch_size", "a rollout is a multiple of the batch")
    for name in ("ppo_micro_batch_size_per_gpu", "ppo_micro_batch_size"):
        key = f"{ACTOR}actor.{name}"
        if isinstance(draft.look(key), int) and "per_device_train_batch_size" not in draft.at("train"):
            draft.rename(key, "train.per_device_train_batch_size")
