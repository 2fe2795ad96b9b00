"""The smallest real trainings with upstream's trainers and ours, each run once for a file of tests."""

from types import SimpleNamespace

import pytest
import trl
from conftest import PAIR_ROWS, SFT_ROWS
from constrained_runs import TRAIN
from datasets import Dataset
from tiny_trainers import ONE_STEP, grpo_trainer, list_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig
from upstream_watch import Reads, find, watched

EXPERTS = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 2,
}
LIST = {"prompt_ids": [5, 6], "completion_ids": [[7, 8], [9]], "ref_logps": [-1.0, -2.0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("seams")


def trained(trainer_class, config, model, rows, folder):
    """A watched trainer of trl's after a step and an evaluation, and the devices for which it chose its fused head."""
    cls, devices = watched(trainer_class), []
    with pytest.MonkeyPatch.context() as patch:
        head = find("trl.trainer.utils")
        patch.setattr(head, "_use_triton", lambda device: devices.append(device))
        args = config(str(folder / trainer_class.__name__), **ONE_STEP)
        trainer = cls(model=model, args=args, train_dataset=Dataset.from_list(rows))
        trainer.train()
        trainer.evaluate(Dataset.from_list(rows[:2]))
    return SimpleNamespace(trainer=trainer, watch=cls.watch, devices=devices)


@pytest.fixture(scope="module")
def sft(model, folder):
    return trained(trl.SFTTrainer, trl.SFTConfig, model, SFT_ROWS, folder)


@pytest.fixture(scope="module")
def reward(model, folder):
    return trained(trl.RewardTrainer, trl.RewardConfig, model, PAIR_ROWS, folder)


@pytest.fixture(scope="module")
def dpo(model, folder):
    return trained(trl.DPOTrainer, trl.DPOConfig, model, PAIR_ROWS, folder)


@pytest.fixture(scope="module")
def grpo(model, prompts, folder):
    """trl's GRPO, watched: a step, its checkpoint, and another step from there; a rollout is for two of them."""
    seen = SimpleNamespace(rollout=set(), batch=set(), forward=set(), metrics=set())

    class Noted(trl.GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            seen.rollout |= output.keys()
            return output

        def compute_loss(self, model, inputs, *args, **kwargs):
            batch = Reads(inputs)
            loss = super().compute_loss(model, batch, *args, **kwargs)
            seen.batch |= batch.asked
            seen.metrics |= self._metrics.keys() | self._metrics["train"].keys()
            return loss

    def note(module, args, kwargs):
        seen.forward |= kwargs.keys()

    cls, config = watched(Noted), {**TRAIN, "num_iterations": 2, "save_steps": 1, "save_strategy": "steps"}
    grpo_trainer(cls, model, prompts, folder / "grpo", {**config, "max_steps": 1}).train()
    trainer = grpo_trainer(cls, model, prompts, folder / "grpo", {**config, "max_steps": 2})
    trainer.model.register_forward_pre_hook(note, with_kwargs=True)
    trainer.train(resume_from_checkpoint=str(folder / "grpo" / "checkpoint-1"))
    trainer.evaluate(trainer.train_dataset.select(range(2)))
    return SimpleNamespace(trainer=trainer, watch=cls.watch, seen=seen)


@pytest.fixture(scope="module")
def ppo(model, prompts, folder):
    """Our own trainer with critics, after a step."""
    from trimtab.pipelines.algorithms.advantages import CriticSettings
    from trimtab.pipelines.algorithms.objectives import Fixed
    from trimtab.pipelines.trainers.constrained_ppo import ConstrainedPPOTrainer

    extra = {"critics": CriticSettings(trunk="shared"), "objective": Fixed({"brief": 1.0, "as": 1.0})}
    train = {**TRAIN, "max_steps": 1, "save_strategy": "no"}
    trainer = grpo_trainer(ConstrainedPPOTrainer, model, prompts, folder / "ppo", train, **extra)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def experts(model, folder):
    """A ListTrainer on a mixture of experts, after a step."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    config = MixtralConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **EXPERTS)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "experts")
    tokenizer.save_pretrained(folder / "experts")
    trainer = list_trainer(str(folder / "experts"), [LIST] * 4, folder / "lists", **ONE_STEP)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def adapters(model):
    from peft import LoraConfig, get_peft_model

    policy = AutoModelForCausalLM.from_pretrained(model)
    return get_peft_model(policy, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
