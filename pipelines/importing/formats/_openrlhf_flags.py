"""OpenRLHF's flags: the flat ones of before, what they are called here, and which have no place in a stage."""

from trimtab.pipelines.importing import arguments

FLAT = {  # dotted flags -> the flat ones of before
    "actor.model_name_or_path": "pretrain", "model.model_name_or_path": "pretrain",
    "reward.model_name_or_path": "reward_pretrain", "reward.remote_url": "remote_rm_url",
    "teacher.model_name_or_path": "teacher", "critic.model_name_or_path": "critic_pretrain",
    "ref.model_name_or_path": "ref_pretrain",
    "actor.adam.lr": "actor_learning_rate", "adam.lr": "learning_rate", "critic.adam.lr": "critic_learning_rate",
    "actor.adam.betas": "adam_betas", "adam.betas": "adam_betas", "actor.lr_scheduler": "lr_scheduler",
    "actor.lr_warmup_ratio": "lr_warmup_ratio", "actor.max_norm": "max_norm", "model.max_norm": "max_norm",
    "actor.eps_clip": "eps_clip", "actor.eps_clip_low_high": "eps_clip_low_high", "model.beta": "beta",
    "actor.gradient_checkpointing_enable": "gradient_checkpointing", "actor.entropy_coef": "entropy_loss_coef",
    "model.gradient_checkpointing_enable": "gradient_checkpointing",
    "train.batch_size": "train_batch_size", "train.micro_batch_size": "micro_train_batch_size",
    "train.max_epochs": "max_epochs", "train.num_episodes": "num_episodes", "train.seed": "seed",
    "rollout.batch_size": "rollout_batch_size", "rollout.micro_batch_size": "micro_rollout_batch_size",
    "rollout.n_samples_per_prompt": "n_samples_per_prompt", "rollout.max_new_tokens": "generate_max_len",
    "rollout.temperature": "temperature", "rollout.top_p": "top_p", "generate.max_new_tokens": "generate_max_len",
    "generate.temperature": "temperature", "generate.top_p": "top_p",
    "data.prompt_dataset": "prompt_data", "data.prompt_split": "prompt_split", "data.dataset": "dataset",
    "data.prompt_probs": "prompt_data_probs", "data.dataset_probs": "dataset_probs", "data.train_split": "train_split",
    "data.prompt_max_len": "prompt_max_len",
    "data.input_key": "input_key", "data.label_key": "label_key", "data.output_key": "output_key",
    "data.chosen_key": "chosen_key", "data.rejected_key": "rejected_key", "data.prompt_key": "prompt_key",
    "data.max_samples": "max_samples", "data.max_len": "max_len", "data.apply_chat_template": "apply_chat_template",
    "eval.dataset": "eval_dataset", "eval.split": "eval_split", "eval.steps": "eval_steps",
    "algo.kl.init_coef": "init_kl_coef", "algo.kl.target": "kl_target", "algo.kl.use_loss": "use_kl_loss",
    "algo.kl.estimator": "kl_estimator", "algo.advantage.estimator": "advantage_estimator",
    "algo.advantage.gamma": "gamma", "algo.advantage.lambd": "lambd",
    "ds.param_dtype": "param_dtype", "ds.packing_samples": "packing_samples", "fsdp.param_dtype": "param_dtype",
    "ds.attn_implementation": "attn_implementation", "fsdp.attn_implementation": "attn_implementation",
    "ds.zero_stage": "zero_stage", "ds.load_in_4bit": "load_in_4bit",
    "lora.rank": "lora_rank", "ds.lora.rank": "lora_rank", "lora.alpha": "lora_alpha", "ds.lora.alpha": "lora_alpha",
    "lora.dropout": "lora_dropout", "ds.lora.dropout": "lora_dropout", "lora.target_modules": "target_modules",
    "ds.lora.target_modules": "target_modules",
    "logger.logging_steps": "logging_steps", "ckpt.save_steps": "save_steps", "ckpt.output_dir": "save_path",
    "reward.normalize_enable": "normalize_reward", "reward.clip_range": "reward_clip_range",
}  # fmt: skip
RENAMES = {
    "learning_rate": "train.learning_rate", "actor_learning_rate": "train.learning_rate",
    "lr_scheduler": "train.lr_scheduler_type", "lr_warmup_ratio": "train.warmup_steps", "l2": "train.weight_decay",
    "max_norm": "train.max_grad_norm", "max_len": "train.max_length", "beta": "train.beta",
    "label_smoothing": "train.label_smoothing", "aux_loss_coef": "train.router_aux_loss_coef",
    "generate_max_len": "train.max_completion_length", "temperature": "train.temperature", "top_p": "train.top_p",
    "init_kl_coef": "train.beta", "eps_clip": "train.epsilon", "n_samples_per_prompt": "train.num_generations",
    "desirable_loss_weight": "train.desirable_weight", "undesirable_loss_weight": "train.undesirable_weight",
    "entropy_loss_coef": "train.entropy_coef", "vllm_gpu_memory_utilization": "train.vllm_gpu_memory_utilization",
    "gradient_checkpointing": "train.gradient_checkpointing", "logging_steps": "train.logging_steps",
    "kl_target": "target_kl",
}  # fmt: skip
REASONS = (
    (r".*(num_nodes|num_gpus_per_node|colocate\w*|zero_stage|zpg|offload|sleep|sync_backend|num_engines|enforce_eager"
     r"|tensor_parallel\w*|ring_\w+|dynamic_batch\w*|max_tokens_per_gpu|overlap_comm|deepcompile|adam_offload|grad_accum"
     r"\w*|local_rank|use_ds_universal_ckpt|cp_size|full_determinism|ref_reward_offload|async_\w+|max_concurrent\w*"
     r"|micro_rollout_batch_size|vllm_generate_batch_size|disable_fast_tokenizer|universal_ckpt|rope_theta)$",
     arguments.PROCESS),
    (r".*(save_path|ckpt_path|ckpt\.\w+|save_hf_ckpt|disable_ds_ckpt|max_ckpt_\w+|load_checkpoint|output_dir|best_metric\w*"
     r"|save_value_network|remove_ckpt)$", "every step has a folder and checkpoints of its own"),
    (r".*(wandb\w*|tensorboard\w*|logger\..+|perf)$", "the pipeline names runs after steps: `wandb: {project: ...}`"),
    (r".*(apply_chat_template|input_template|tokenizer_chat_template|packing_samples\w*|multiturn)$",
     "conversations are rendered by the model's own chat template, prompts once for all their answers"),
    (r".*(critic_\w+|critic\..+|value_clip|freezing_actor_steps)$", "`critics` in a stage ppo says how to train them"),
    (r"^(gamma|lambd)$", "`critics: {gamma: ..., lam: ...}` in a stage ppo: see docs/stages.md"),
    (r".*(normalize_reward|reward_clip_range|normalize_enable|no_advantage_std_norm|advantage_clip\w*)$",
     "`normalize: true` in the reward model's block measures scores in its own standard deviations"),
    (r".*(dynamic_filtering\w*|overlong_\w+|stop_properly\w*|vllm_is_\w+|enable_vllm_is\w*|vllm\..+|policy_loss_type"
     r"|kl_estimator|use_kl_loss|use_kl_estimator_k3|nll_loss_coef|ref_\w+|ref\..+|dual_clip|loss_agg_mode|opd\..+)$",
     "TRL's config of the stage has its own keys for it, or none: docs/online-methods.md"),
    (r".*(eval_steps|eval_temperature|eval_n_samples_per_prompt|eval\..+|eval_split)$",
     "`eval_data` is evaluated at the end; a stage `evaluate` samples with settings of its own"),
    (r"^(bf16|param_dtype|flash_attn|adam_betas|use_liger_kernel|pretrain_mode|agent_func_path|head_prefix"
     r"|value_head_prefix|multiturn|num_episodes|input_key|output_key|label_key|prompt_key|chosen_key|rejected_key"
     r"|train_split|prompt_split|data\..+|max_samples|train\..+|algo\..+|ds\..+|rollout\..+|actor\..+|reward\..+)$",
     "no counterpart: see what the stage takes in docs/stages.md"),
)  # fmt: skip
