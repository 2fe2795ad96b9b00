MODEL=${MODEL:-Qwen/Qwen3-0.6B}
CUDA_VISIBLE_DEVICES=0,1 trl grpo --model_name_or_path $MODEL \
  --dataset_name trl-lib/DeepMath-103K --dataset_train_split train \
  --reward_funcs accuracy_reward think_format_reward \
  --num_generations 8 --max_completion_length 512 --learning_rate 1e-6 \
  --loss_type dr_grpo --beta 0.0 --no_remove_unused_columns --output_dir "${MODEL}-grpo" 2>&1 | tee log.txt
