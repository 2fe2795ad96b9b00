"""Every private or undocumented member of trl, transformers, accelerate, peft, deepspeed and vLLM that we rely on.

tests/trainers/test_seams.py takes the smallest real steps with those packages and has one case for each entry, so that
an upgrade which moves one fails in the case that says which, and which of our files to look at. A member that is used
and not listed fails in tests/trainers/test_contract.py. This module imports nothing of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["method", "function", "class", "attribute", "key", "keyword", "global", "variable", "file"]
Use = Literal["overrides", "calls", "reads", "writes", "patches"]


@dataclass(frozen=True)
class Entry:
    """One member: whose it is, what it is, what we do with it, and in which of our files.

    A method that we override has exactly these parameters, one that we call begins with them. What we read, theirs
    sets; what we write, theirs reads; what we patch is looked up by name when it is needed.
    """

    owner: str  # the import path of a class, a module, or a method whose dictionary or keywords are meant
    member: str
    kind: Kind
    use: Use
    files: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        return f"{self.owner}: {self.kind} {self.member}, {self.use}"


GRPO = "pipelines/trainers/constrained_grpo.py"
PPO = "pipelines/trainers/constrained_ppo.py"
ROLLOUTS = "pipelines/trainers/rollouts.py"
REWARDED = "pipelines/trainers/rewarded_rollouts.py"
WEIGHTED = "pipelines/trainers/weighted_rewards.py"
MEASURED = "pipelines/trainers/measured_rollouts.py"
RESUMABLE = "pipelines/trainers/resumable_rollouts.py"
SEEDED = "pipelines/trainers/seeded_rollouts.py"
ROWS = "pipelines/trainers/row_means.py"
PROXIMAL = "pipelines/trainers/proximal_steps.py"
STEPS = "pipelines/trainers/whole_steps.py"
MICRO = "pipelines/trainers/micro_batches.py"
LISTS = "pipelines/trainers/lists.py"
RANKINGS = "pipelines/trainers/listwise_reward.py"
STORED = "pipelines/trainers/stored_dpo.py"
CLASSIFIER = "pipelines/trainers/classifier.py"
TRL = "pipelines/trainers/seams/trl.py"
ENGINES = "pipelines/trainers/seams/engines.py"
BLOCKS = "pipelines/data/blocks.py"
DRY = "pipelines/training/dry.py"
FIT = "pipelines/training/fit.py"
RECORDER = "pipelines/training/recorder.py"
SAVE = "pipelines/training/save.py"
CHECKPOINTS = "pipelines/training/checkpoints.py"
COUNTING = "pipelines/training/counting.py"
OPTIMIZERS = "pipelines/training/optimizers.py"
OPTIMIZER_STATE = "pipelines/training/optimizer_state.py"
REWARD_CHECKPOINT = "rewards/_checkpoint.py"
PACKING = "rewards/_packing.py"
CONTINUOUS = "pipelines/sampling/continuous_engine.py"

LOSS = ("model", "inputs", "return_outputs", "num_items_in_batch")
ROLLOUT = "trl.GRPOTrainer._generate_and_score_completions"  # the dictionary that it returns
BATCH = "trl.GRPOTrainer.compute_loss"  # the dictionary that it takes as `inputs`
HEAD = "trl.trainer.utils.FusedCausalLMOutput"  # of a model with trl's fused LM head
TRACKERS = "transformers.integrations.integration_utils"
HUB = "transformers.utils.cached_file"

CONTRACT = (
    Entry(
        "trl.DPOTrainer", "compute_ref_log_probs", "method", "calls", (STORED,), ("model", "inputs"),
        "also where the reference is asked before the training",
    ),
    # trl.GRPOTrainer: the methods
    Entry(
        "trl.GRPOTrainer", "_calculate_rewards", "method", "overrides", (GRPO, REWARDED),
        ("inputs", "prompts", "completions", "completion_ids_list"), "returns (all ranks' N, K), NaN for None",
    ),
    Entry("trl.GRPOTrainer", "_generate_and_score_completions", "method", "overrides", (REWARDED,), ("inputs",)),
    Entry(
        "trl.GRPOTrainer", "_tokenize_prompts", "method", "overrides", (REWARDED,), ("prompts",),
        "returns ids, images and further inputs of a model that sees",
    ),
    Entry(
        "trl.GRPOTrainer", "_generate_single_turn", "method", "overrides", (SEEDED,),
        ("prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"),
        "returns completions' ids and, where vLLM samples, their log-probabilities",
    ),
    Entry("trl.GRPOTrainer", "compute_loss", "method", "overrides", (MEASURED, GRPO, PPO, PROXIMAL, REWARDED), LOSS),
    Entry("trl.GRPOTrainer", "log", "method", "overrides", (MEASURED,), ("logs", "start_time")),
    Entry(
        "trl.GRPOTrainer", "prediction_step", "method", "overrides", (MEASURED,),
        ("model", "inputs", "prediction_loss_only", "ignore_keys"),
    ),
    Entry(
        "trl.GRPOTrainer", "training_step", "method", "overrides", (REWARDED,),
        ("model", "inputs", "num_items_in_batch"),
    ),
    Entry(
        "trl.GRPOTrainer", "_save_checkpoint", "method", "overrides", (GRPO, RESUMABLE, REWARDED),
        ("model", "trial"),
    ),
    Entry(
        "trl.GRPOTrainer", "_load_optimizer_and_scheduler", "method", "overrides", (GRPO, RESUMABLE), ("checkpoint",)
    ),
    Entry("trl.GRPOTrainer", "_get_train_sampler", "method", "overrides", (RESUMABLE,), ("dataset",)),
    Entry("trl.GRPOTrainer", "create_optimizer", "method", "overrides", (PPO,), ("model",)),
    Entry("trl.GRPOTrainer", "_save", "method", "overrides", (PPO,), ("output_dir", "state_dict")),
    Entry(
        "trl.GRPOTrainer", "_load_from_checkpoint", "method", "overrides", (PPO,), ("resume_from_checkpoint", "model")
    ),
    Entry(
        "trl.GRPOTrainer", "_get_per_token_logps_and_entropies", "method", "calls", (GRPO, PROXIMAL),
        ("model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"), "log-probabilities come first",
    ),
    # trl.RLOOTrainer and trl.DistillationTrainer: what differs from trl.GRPOTrainer
    Entry(
        "trl.RLOOTrainer", "_generate_single_turn", "method", "calls", (SEEDED,),
        ("prompt_ids", "images", "multimodal_fields"), "returns completions' ids alone",
    ),
    Entry(
        "trl.DistillationTrainer", "_generate_single_turn", "method", "calls", (SEEDED,),
        ("prompt_ids", "images", "multimodal_fields"), "returns completions' ids alone",
    ),
    # trl.GRPOTrainer: the attributes
    Entry("trl.GRPOTrainer", "_logs", "attribute", "reads", (REWARDED,)),
    Entry("trl.GRPOTrainer._logs", "prompt", "key", "reads", (REWARDED,)),
    Entry("trl.GRPOTrainer._logs", "completion", "key", "reads", (REWARDED,)),
    Entry("trl.GRPOTrainer._logs", "rewards", "key", "reads", (REWARDED,), note="a dictionary by the reward's name"),
    Entry(
        "trl.GRPOTrainer", "_metrics", "attribute", "reads", (MEASURED, GRPO, PPO, PROXIMAL, REWARDED),
        note="which `log` averages",
    ),
    Entry("trl.GRPOTrainer._metrics", "train", "key", "reads", (GRPO, PPO, PROXIMAL, REWARDED)),
    Entry("trl.GRPOTrainer._metrics", "eval", "key", "reads", (MEASURED,)),
    Entry("trl.GRPOTrainer._metrics", "kl", "key", "reads", (GRPO,), note="in `train`, once beta is above 0"),
    Entry("trl.GRPOTrainer", "num_generations", "attribute", "reads", (REWARDED,)),
    Entry("trl.GRPOTrainer", "num_generations_eval", "attribute", "reads", (MEASURED, REWARDED)),
    Entry("trl.GRPOTrainer", "eos_token_ids", "attribute", "reads", (MEASURED,)),
    Entry("trl.GRPOTrainer", "num_iterations", "attribute", "reads", (RESUMABLE,)),
    Entry("trl.GRPOTrainer", "generation_config", "attribute", "reads", (SEEDED,)),
    Entry("trl.GRPOTrainer", "generation_kwargs", "attribute", "reads", (SEEDED,)),
    Entry("trl.GRPOTrainer", "use_vllm", "attribute", "reads", (SEEDED,)),
    Entry("trl.GRPOTrainer", "model_wrapped", "attribute", "reads", (SEEDED,)),
    Entry("trl.GRPOTrainer", "is_deepspeed_enabled", "attribute", "reads", (SEEDED,)),
    Entry("trl.GRPOTrainer", "use_transformers_continuous_batching", "attribute", "reads", (SEEDED,)),
    Entry("trl.GRPOTrainer", "reward_funcs", "attribute", "reads", (GRPO, PPO, REWARDED)),
    Entry("trl.GRPOTrainer", "reward_func_names", "attribute", "reads", (MEASURED, GRPO, PPO, REWARDED)),
    Entry("trl.GRPOTrainer", "scale_rewards", "attribute", "reads", (GRPO, PPO)),
    Entry("trl.GRPOTrainer", "chat_template_kwargs", "attribute", "reads", (REWARDED,)),
    Entry(
        "trl.GRPOTrainer", "reward_weights", "attribute", "writes", (MEASURED, GRPO, WEIGHTED),
        note="after the rewards",
    ),
    Entry("trl.GRPOTrainer", "beta", "attribute", "writes", (GRPO, PPO), note="as compute_loss finds it"),
    Entry("trl.GRPOTrainer", "epsilon_low", "attribute", "writes", (PROXIMAL,), note="as compute_loss finds it"),
    Entry("trl.GRPOTrainer", "epsilon_high", "attribute", "writes", (PROXIMAL,), note="as compute_loss finds it"),
    Entry("trl.GRPOTrainer", "_step", "attribute", "writes", (RESUMABLE, SEEDED), note="micro-batches so far"),
    Entry("trl.GRPOTrainer", "_buffered_inputs", "attribute", "writes", (RESUMABLE,), note="a list of batches"),
    Entry("trl.trainer.utils.RepeatSampler", "shuffle", "attribute", "reads", (RESUMABLE,)),
    Entry("trl.trainer.utils.RepeatSampler", "generator", "attribute", "reads", (RESUMABLE,)),
    Entry("trl.trainer.utils.RepeatSampler", "seed", "attribute", "reads", (RESUMABLE,)),
    # trl.GRPOTrainer: its dictionary of a rollout, and what the loss makes of it
    Entry(ROLLOUT, "prompt_ids", "key", "reads", (ROLLOUTS, GRPO)),
    Entry(ROLLOUT, "prompt_mask", "key", "reads", (ROLLOUTS, GRPO)),
    Entry(ROLLOUT, "completion_ids", "key", "reads", (GRPO,)),
    Entry(ROLLOUT, "completion_mask", "key", "reads", (ROLLOUTS, GRPO, PPO)),
    Entry(ROLLOUT, "old_per_token_logps", "key", "reads", (GRPO, PROXIMAL), note="where a rollout outlives its step"),
    Entry(ROLLOUT, "ref_per_token_logps", "key", "reads", (GRPO, PPO), note="where beta is above 0"),
    Entry(BATCH, "num_items_in_batch", "key", "writes", (MEASURED, PPO), note="tokens of a rollout, on all ranks"),
    Entry(BATCH, "advantages", "key", "writes", (GRPO, PROXIMAL, WEIGHTED), note="(N,), or (N, T) of every token"),
    Entry(BATCH, "old_per_token_logps", "key", "writes", (PPO,)),
    # trl.SFTTrainer
    Entry("trl.SFTTrainer", "compute_loss", "method", "overrides", (ROWS,), LOSS),
    Entry("trl.SFTTrainer", "log", "method", "overrides", (ROWS,), ("logs", "start_time")),
    Entry("trl.SFTTrainer", "aux_loss_enabled", "attribute", "reads", (LISTS,)),
    Entry("trl.SFTTrainer", "router_aux_loss_coef", "attribute", "reads", (LISTS,)),
    # trl.RewardTrainer
    Entry(
        "trl.RewardTrainer", "_prepare_dataset", "method", "overrides", (RANKINGS,),
        ("dataset", "processing_class", "args", "dataset_name"),
    ),
    Entry("trl.RewardTrainer", "_set_signature_columns_if_needed", "method", "overrides", (RANKINGS,)),
    Entry("trl.RewardTrainer", "compute_loss", "method", "overrides", (ROWS, STEPS), LOSS),
    Entry("trl.DPOTrainer", "compute_loss", "method", "overrides", (STEPS,), LOSS),
    Entry(
        "trl.RewardTrainer", "prediction_step", "method", "overrides", (ROWS,),
        ("model", "inputs", "prediction_loss_only", "ignore_keys"),
    ),
    Entry("trl.RewardTrainer", "log", "method", "overrides", (ROWS,), ("logs", "start_time")),
    Entry("trl.RewardTrainer", "_signature_columns", "attribute", "writes", (RANKINGS,)),
    Entry("trl.RewardTrainer", "data_collator", "attribute", "writes", (RANKINGS,), note="after __init__"),
    # trl: the fused LM head
    Entry(HEAD, "fused_lm_head", "keyword", "calls", (TRL,), note="of the model's forward"),
    Entry(HEAD, "input_ids", "keyword", "reads", (TRL,), note="trl's trainers pass it by this name"),
    Entry(HEAD, "attention_mask", "keyword", "reads", (TRL,), note="trl's trainers pass it by this name"),
    Entry(HEAD, "log_probs", "attribute", "reads", (TRL,), note="(N, L - 1), 0 where the label is -100"),
    Entry(HEAD, "aux_loss", "attribute", "reads", (TRL,), note="of a mixture of experts"),
    Entry("trl.trainer.utils", "FusedCausalLMOutput", "class", "reads", (TRL,), note="ours is a subclass"),
    Entry("trl.scripts.utils", "DatasetConfig", "class", "reads", (BLOCKS,), note="ours is a subclass"),
    Entry("trl.trainer.utils", "_use_triton", "global", "patches", (TRL,), ("device",)),
    Entry(
        "trl.trainer.utils", "add_fused_lm_head", "function", "calls", (TRL,),
        ("model", "temperature", "cast_lm_head_to_fp32", "outputs"),
    ),
    Entry(
        "trl.models", "unwrap_model_for_generation", "function", "calls", (TRL, SEEDED),
        ("model", "accelerator", "gather_deepspeed3_params", "generation_kwargs", "gradient_checkpointing_kwargs"),
    ),
    Entry("trl.trainer.utils", "disable_dropout_in_model", "function", "calls", (TRL, PPO, CLASSIFIER), ("model",)),
    Entry("trl.kernels.chunked_logprob", "_use_triton", "function", "calls", (TRL,), ("device",)),
    Entry("trl.kernels.chunked_logprob", "TOKEN_CHUNK_SIZE", "global", "patches", (TRL,)),
    # transformers
    Entry("transformers.Trainer", "loss_is_scaled_for_ga", "attribute", "writes", (ROWS,)),
    Entry(
        "transformers.Trainer", "get_batch_samples", "method", "overrides", (ROWS, STEPS, MICRO),
        ("epoch_iterator", "num_batches", "device"),
    ),
    Entry(
        "transformers.Trainer", "training_step", "method", "overrides", (MICRO,),
        ("model", "inputs", "num_items_in_batch"), "returns a micro-batch's part of the step's loss",
    ),
    Entry("transformers.Trainer", "get_train_dataloader", "method", "overrides", (MICRO,), (), "with the collator"),
    Entry("transformers.Trainer", "floating_point_ops", "method", "overrides", (MICRO,), ("inputs",)),
    Entry("transformers.Trainer", "data_collator", "attribute", "writes", (MICRO,), note="of the training's loader"),
    Entry("transformers.Trainer", "_get_output_dir", "method", "calls", (RESUMABLE, REWARDED), ("trial",)),
    Entry("transformers.Trainer", "_save", "method", "calls", (ENGINES,), ("output_dir", "state_dict")),
    Entry("transformers.Trainer", "_get_grad_norm", "method", "patches", (TRL,), ("model", "grad_norm")),
    Entry("transformers.Trainer", "optimizer_cls_and_kwargs", "attribute", "writes", (OPTIMIZERS,)),
    Entry("transformers.Trainer", "control", "attribute", "writes", (REWARDED,)),
    Entry("transformers.Trainer", "_tr_loss", "attribute", "writes", (COUNTING,), note="a tensor, since the last log"),
    Entry("transformers.Trainer", "_total_loss_scalar", "attribute", "writes", (COUNTING,), note="up to the last log"),
    Entry("transformers.Trainer", "_globalstep_last_logged", "attribute", "writes", (COUNTING,)),
    Entry("trl.SFTTrainer", "_total_train_tokens", "attribute", "writes", (COUNTING,), note="also of DPO and others"),
    Entry("trl.SFTTrainer", "_metrics", "attribute", "reads", (COUNTING, MICRO), note="of all of trl, by mode"),
    Entry("transformers.Trainer", "callback_handler", "attribute", "reads", (REWARDED,)),
    Entry("transformers.Trainer", "current_gradient_accumulation_steps", "attribute", "writes", (PPO, MICRO)),
    Entry("transformers.Trainer", "is_deepspeed_enabled", "attribute", "reads", (ENGINES,)),
    Entry("transformers.Trainer", "model_wrapped", "attribute", "reads", (ENGINES,), note="DeepSpeed's engine"),
    Entry("trl.RewardTrainer", "is_in_train", "attribute", "writes", (ENGINES,), note="an evaluation asks"),
    Entry("transformers.Trainer", "_load_rng_state", "method", "calls", (ENGINES,), ("checkpoint",)),
    Entry(
        "transformers.Trainer", "checkpoint-1", "file", "reads", (RESUMABLE, CHECKPOINTS, REWARDED),
        note="and so on",
    ),
    Entry("transformers.Trainer", "trainer_state.json", "file", "reads", (FIT,), note="with `global_step`"),
    Entry("transformers.Trainer", "training_args.bin", "file", "reads", (SAVE,), note="a pickle, which we remove"),
    Entry(
        "transformers.trainer_callback.CallbackHandler", "on_save", "method", "calls", (REWARDED,),
        ("args", "state", "control"),
    ),
    Entry("transformers.PreTrainedConfig", "_attn_implementation", "attribute", "reads", (PACKING, CONTINUOUS)),
    Entry("transformers.PreTrainedModel", "base_model", "attribute", "reads", (TRL, PPO), note="which the head runs"),
    Entry("transformers.PreTrainedConfig", "_name_or_path", "attribute", "reads", (PPO,)),
    Entry("transformers.training_args", "is_torch_bf16_gpu_available", "global", "patches", (ENGINES,)),
    Entry(TRACKERS, "rewrite_logs", "function", "calls", (TRL, RECORDER), ("d",)),
    Entry(TRACKERS, "get_available_reporting_integrations", "function", "calls", (TRL, DRY)),
    Entry(TRACKERS, "get_reporting_integration_callbacks", "function", "calls", (TRL, DRY), ("report_to",)),
    Entry("peft.tuners.tuners_utils", "BaseTunerLayer", "class", "reads", (DRY,), note="of a module with an adapter"),
    Entry("transformers.TrainingArguments", "_n_gpu", "attribute", "writes", (ENGINES,), note="devices of a process"),
    Entry("transformers.integrations.deepspeed", "_hf_deepspeed_config_weak_ref", "global", "patches", (ENGINES,)),
    Entry(HUB, "_raise_exceptions_for_missing_entries", "keyword", "calls", (REWARD_CHECKPOINT,)),
    Entry(HUB, "_raise_exceptions_for_connection_errors", "keyword", "calls", (REWARD_CHECKPOINT,)),
    Entry(HUB, "_raise_exceptions_for_gated_repo", "keyword", "calls", (REWARD_CHECKPOINT,)),
    # accelerate
    Entry(
        "accelerate.PartialState", "_prepare_backend", "method", "patches", (ENGINES,),
        ("cpu", "sagemaker_dp", "backend"), "returns the backend and the distributed type",
    ),
    Entry(
        "accelerate.state.GradientState", "_set_sync_gradients", "method", "calls", (ENGINES,), ("sync_gradients",),
        "as transformers' loop does before each micro-batch",
    ),
    Entry("accelerate.state", "ACCELERATE_TORCH_DEVICE", "variable", "writes", (ENGINES,)),
    Entry("accelerate.state", "ACCELERATE_USE_FSDP", "variable", "reads", (ENGINES,)),
    Entry("accelerate.state", "ACCELERATE_USE_DEEPSPEED", "variable", "reads", (ENGINES,)),
    Entry("accelerate.optimizer.AcceleratedOptimizer", "optimizer", "attribute", "reads", (OPTIMIZER_STATE,)),
    # peft
    Entry("peft.PeftModel", "peft_config", "attribute", "reads", (PPO, ENGINES, SAVE), note="by the adapter's name"),
    Entry("peft.PeftModel.peft_config", "default", "key", "reads", (SAVE,)),
    # deepspeed
    Entry("deepspeed.ops", "__compatible_ops__", "global", "patches", (ENGINES,), note="filled when it is first read"),
    Entry("deepspeed.ops.__compatible_ops__", "deepspeed_shm_comm", "key", "writes", (ENGINES,)),
    Entry("deepspeed.runtime.zero", "GatheredParameters", "class", "calls", (ENGINES,), ("params",)),
    Entry("deepspeed.DeepSpeedEngine", "get_global_grad_norm", "method", "calls", (ENGINES,), ()),
    Entry("deepspeed.utils", "safe_get_full_fp32_param", "function", "calls", (ENGINES,), ("param",)),
    Entry("deepspeed.runtime.zero.partition_parameters", "ds_tensor", "variable", "reads", (ENGINES,)),
    Entry("deepspeed.runtime.zero.partition_parameters", "ds_numel", "variable", "reads", (ENGINES,)),
    Entry("deepspeed.accelerator.real_accelerator", "DS_ACCELERATOR", "variable", "writes", (ENGINES,)),
    # vLLM
    Entry("vllm.LLM", "llm_engine", "attribute", "reads", (ENGINES,)),
    Entry("vllm.LLM.llm_engine", "engine_core", "attribute", "reads", (ENGINES,), note="with `shutdown`"),
)  # fmt: skip
