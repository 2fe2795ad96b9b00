python3 -m openrlhf.cli.train_ppo_ray --pretrain Qwen/Qwen2.5-1.5B-Instruct \
   --remote_rm_url http://localhost:5000/get_reward --advantage_estimator group_norm --n_samples_per_prompt 8 \
   --prompt_data org/prompts --input_key prompt --train_batch_size 128 --micro_train_batch_size 4 \
   --rollout_batch_size 16 --generate_max_len 512 --prompt_max_len 512 --actor_learning_rate 5e-7 \
   --init_kl_coef 1e-3 --use_kl_loss --bf16
