WORK_DIR=$(cd "$(dirname "$0")" && pwd)
MODEL_PATH="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
REWARD="${WORK_DIR}/math_reward_func.py"
python3 -m openrlhf.cli.train_ppo_ray \
   --actor.model_name_or_path ${MODEL_PATH} --actor.num_nodes 1 --actor.num_gpus_per_node 8 \
   --ref.num_nodes 1 --vllm.num_engines 8 --vllm.enable_sleep --train.colocate_all \
   --reward.remote_url ${REWARD} --data.prompt_dataset org/dapo-math --data.input_key prompt --data.label_key label \
   --data.apply_chat_template --algo.advantage.estimator reinforce_baseline --algo.kl.init_coef 1e-4 \
   --algo.kl.use_loss --algo.kl.estimator k2 --algo.dynamic_filtering_enable --algo.dynamic_filtering_range 0 1 \
   --actor.eps_clip_low_high 0.2 0.27 --actor.adam.lr 1e-6 --actor.gradient_checkpointing_enable \
   --train.batch_size 1024 --train.micro_batch_size 4 --rollout.batch_size 128 --rollout.n_samples_per_prompt 16 \
   --rollout.max_new_tokens 2048 --train.num_episodes 3 --ds.param_dtype bf16 --ds.zero_stage 3 \
   --ckpt.output_dir out --ckpt.save_hf --ckpt.save_steps 5 --logger.wandb.key {wandb_token}
