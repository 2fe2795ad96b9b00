#!/usr/bin/env bash
set -xeuo pipefail
clip_ratio_low=0.2
clip_ratio_high=0.28
MODEL_PATH=${MODEL_PATH:-"Qwen/Qwen2.5-1.5B"}
DATA=(
    data.train_files="${TRAIN_FILE:-dapo-math-17k.parquet}"   # prompts
    data.train_batch_size=64
    data.max_prompt_length=$((1024 * 2))
    data.max_response_length=2048
)
python3 -m verl.trainer.main_ppo "${DATA[@]}" \
    algorithm.adv_estimator=grpo +algorithm.norm_adv_by_std_in_grpo=False \
    actor_rollout_ref.model.path="${MODEL_PATH}" \
    actor_rollout_ref.actor.clip_ratio_low=${clip_ratio_low} actor_rollout_ref.actor.clip_ratio_high=${clip_ratio_high} \
    actor_rollout_ref.actor.loss_agg_mode=token-mean actor_rollout_ref.actor.ppo_mini_batch_size=32 \
    actor_rollout_ref.actor.use_kl_loss=False actor_rollout_ref.actor.kl_loss_coef=0.0 \
    actor_rollout_ref.rollout.n=16 actor_rollout_ref.rollout.temperature=1.0 actor_rollout_ref.rollout.top_p=1.0 \
    actor_rollout_ref.rollout.val_kwargs.temperature=1.0 actor_rollout_ref.actor.grad_clip=1.0 \
    custom_reward_function.path=my_score.py custom_reward_function.name=score reward_model.reward_manager=dapo \
    trainer.total_epochs=1
