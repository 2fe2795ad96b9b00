train_files="['$HOME/data/full_hh_rlhf/rl/train.parquet', '$HOME/data/math/train.parquet']"
n=4
python3 -m verl.trainer.main_ppo algorithm.adv_estimator=gae "data.train_files=$train_files" \
    data.train_batch_size=512 data.max_prompt_length=1024 data.max_response_length=512 data.prompt_key=prompt \
    actor_rollout_ref.model.path=deepseek-ai/deepseek-llm-7b-chat actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=128 actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16 \
    actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=${n} \
    critic.optim.lr=1e-5 critic.model.path=deepseek-ai/deepseek-llm-7b-chat critic.ppo_micro_batch_size_per_gpu=16 \
    reward_model.enable=True reward_model.model.path=sfairXC/FsfairX-LLaMA3-RM-v0.1 reward_model.micro_batch_size_per_gpu=8 \
    algorithm.kl_ctrl.kl_coef=0.001 trainer.total_epochs=1 trainer.val_before_train=False
