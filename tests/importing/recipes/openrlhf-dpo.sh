torchrun --standalone --nproc-per-node ${NPROC_PER_NODE:-8} -m openrlhf.cli.train_dpo \
   --ckpt.output_dir ./checkpoint/dpo --ckpt.save_steps -1 --logger.logging_steps 1 --eval.steps -1 \
   --train.batch_size 256 --train.micro_batch_size 1 --model.model_name_or_path OpenRLHF/Llama-3-8b-sft-mixture \
   --ds.param_dtype bf16 --train.max_epochs 1 --data.max_len 8192 --adam.lr 5e-7 --model.beta 0.1 \
   --data.dataset OpenRLHF/preference_dataset --data.apply_chat_template --data.chosen_key good --data.rejected_key bad \
   --ds.attn_implementation flash_attention_2 --ds.packing_samples --model.gradient_checkpointing_enable
