"""axolotl's keys: what they are called here, and why some have no place in a stage."""

from trimtab.pipelines.importing import arguments

RENAMES = {
    "micro_batch_size": "train.per_device_train_batch_size",
    "eval_batch_size": "train.per_device_eval_batch_size",
    "num_epochs": "train.num_train_epochs",
    "optimizer": "train.optim",
    "lr_scheduler": "train.lr_scheduler_type",
    "dataset_processes": "train.dataset_num_proc",
    "rl_beta": "train.beta",
    "dpo_beta": "train.beta",
    "kto_desirable_weight": "train.desirable_weight",
    "kto_undesirable_weight": "train.undesirable_weight",
    "dpo_label_smoothing": "train.label_smoothing",
    "sample_packing": "train.packing",
    "eval_sample_packing": "train.eval_packing",
    "revision_of_model": "model.model_revision",
    "peft_use_dora": "model.use_dora",
    "peft_use_rslora": "model.use_rslora",
    "lora_modules_to_save": "model.lora_modules_to_save",
    "center_rewards_coefficient": "train.center_rewards_coefficient",
}
ATTENTION = {"flash_attention": "flash_attention_2", "sdp_attention": "sdpa", "eager_attention": "eager",
             "flex_attention": "flex_attention"}  # fmt: skip
OF_LIGER = arguments.REASONS["use_liger_kernel"]
REASONS = (  # of keys, by the first pattern that fits
    (r"^(model_type|tokenizer_type|tokenizer_config|tokenizer_use_\w+|processor_type|base_model_config|is_\w+_model"
     r"|is_\w+_derived_model|base_model_ignore_patterns|num_labels)$", "the model's own configuration says it"),
    (r"^(wandb_(project|entity))$", "stands once in the recipe: `wandb: {project: ..., entity: ...}`"),
    (r"^(wandb_\w+|mlflow_\w+|comet_\w+|use_(wandb|mlflow|comet|tensorboard|trackio)|swanlab_\w+)$",
     "the pipeline names runs after steps"),
    (r"^(strict|debug|local_rank|resume_from_checkpoint|auto_resume_from_checkpoints|resize_token_embeddings_to_32x"
     r"|dataset_prepared_path|shuffle_merged_datasets|skip_prepare_dataset|dataset_keep_in_memory|save_safetensors"
     r"|save_only_model|dataset_exact_deduplication|deduplicate_\w+|dataset_shard_\w+|experimental_\w+)$",
     "the pipeline does so in one way: rows are hashed, steps are resumed, weights are safetensors"),
    (r"^(hub_\w+|push_\w+|hf_use_auth_token)$", arguments.UPLOAD),
    (r"^(deepspeed|fsdp\w*|ddp\w*|tensor_parallel_size|context_parallel_size|sequence_parallel_degree|dp_\w+|ray_\w+"
     r"|use_ray|heads_k_stride|ring_attn_func|accelerator_config|device_map|max_memory|gpu_memory_limit)$",
     arguments.PROCESS),
    (r"^(special_tokens|tokens|added_tokens_overrides)$", "the tokenizer's own are used; `train.eos_token` and "
     "`train.pad_token` name others of its vocabulary"),
    (r"^(chat_template|chat_template_jinja|default_system_message)$", "conversations are rendered by the model's own "
     "chat template; sft and reward take another one by `train.chat_template_path`"),
    (r"^(train_on_inputs|roles_to_train|train_on_eot|train_on_eos)$", "`train.completion_only_loss` and "
     "`train.assistant_only_loss` say what is learned"),
    (r"^(pad_to_sequence_len|multipack_\w+|sample_packing_\w+|batch_flattening|curriculum_sampling|excess_\w+"
     r"|min_sample_len|sequence_len_overflow_handling)$",
     "rows are padded or packed by `train.padding_free` and `train.packing`"),
    (r"^(evals_per_epoch|saves_per_epoch)$", "`train.eval_steps` and `train.save_steps` below 1 are shares of it"),
    (r"^(eval_table_size|eval_max_new_tokens|do_bench_eval|eval_causal_lm_metrics|early_stopping_patience|lm_eval\w*"
     r"|loss_watchdog_\w+|bench_dataset)$", "a stage `evaluate` samples, scores and compares policies"),
    (r"^(liger_\w+|plugins|cut_cross_entropy|unsloth_\w+|lora_(mlp|qkv|o|embedding)_kernel|torchao_\w+|qat|fp8\w*"
     r"|quantization)$", OF_LIGER),
    (r"^(relora_\w+|lisa_\w+|lora_fan_in_fan_out|lora_on_cpu|loraplus_\w+|peft|peft_\w+|unfrozen_parameters|galore_\w+"
     r"|lora_model_dir|gptq\w*|bnb_config_kwargs|llama_4_\w+|noisy_embedding_alpha)$",
     "an optimizer, adapter or quantisation of another kind: `train.optim` and `model` take TRL's"),
    (r"^(gradient_checkpointing_offload|activation_offloading_legacy|low_cpu_mem_usage|torch_compile_\w+|xformers_attention"
     r"|s2_attention|flash_attn_\w+|flash_optimum|sageattention|gc_steps|include_tokens_per_second|profiler_steps"
     r"|use_\w+_kernels?)$", "a way to be fast or small that the pipeline does not have, or has by itself"),
    (r"^(lr_groups|lr_quadratic_warmup|cosine_\w+|embedding_lr\w*|lr_div_factor|adam_epsilon2|adam_beta3)$",
     "`train.lr_scheduler_kwargs` and `train.optim_args` take what transformers knows"),
    (r"^(rope_scaling|overrides_of_model_\w+|model_quantization_config\w*|trust_remote_code|remove_unused_columns)$",
     "a property of the model's own configuration, or without use here"),
    (r"^(rpo_alpha|orpo_alpha|simpo_gamma|cpo_alpha|dpo_norm_loss|dpo_use_\w+|dpo_padding_free)$",
     "an option of a loss that TRL does not have under this name: see `train.loss_type`"),
)  # fmt: skip
