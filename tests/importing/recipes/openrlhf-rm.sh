deepspeed --module openrlhf.cli.train_rm \
   --save_path ./checkpoint/rm --train_batch_size 256 --micro_train_batch_size 1 \
   --pretrain OpenRLHF/Llama-3-8b-sft-mixture --param_dtype bf16 --max_epochs 1 --max_len 8192 \
   --zero_stage 3 --learning_rate 9e-6 \
   --dataset org/pairs-one,org/pairs-two --dataset_probs 0.7,0.3 \
   --apply_chat_template --chosen_key chosen --rejected_key rejected \
   --attn_implementation flash_attention_2 --packing_samples --gradient_checkpointing --adam_offload
