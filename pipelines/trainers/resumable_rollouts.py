"""Rollouts that go on from any checkpoint exactly: they, their place and their order are in the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback


class ResumableRollouts(Trainer):
    """A mixin for trl's trainers with rollouts, whose resumed run ends with the weights of an undisturbed one.

    trl 1.16 forgets three things. Its RepeatSampler shuffles every epoch from where the last one has left its
    generator, which begins anew on resume, so that later epochs have other prompts: here the epoch seeds it. Rollouts
    that are still to be learned from are gone and are made anew, by newer weights (as intended by
    https://github.com/huggingface/trl/pull/3148), and the place in them begins at 0 again, so that all later rollouts
    are made at other steps: here both are in the checkpoint, as `rollouts.json` and one file per rank.
    """

    _buffered_inputs: list[dict[str, Tensor]] | None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.add_callback(_SeedEpoch(self))

    def _get_train_sampler(self, dataset: Any = None) -> Sampler:
        self.epoch_sampler = _EpochSampler(super()._get_train_sampler(dataset))
        return self.epoch_sampler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self._is_in_rollout():
            tensors: dict[str, Tensor] = {}
            for part, batch in enumerate(self._buffered_inputs or []):
                tensors |= {f"{part}/{key}": value.contiguous().clone() for key, value in batch.items()}
            save_file(tensors, self._rollouts(folder))
        if self.args.should_save:
            (folder / "rollouts.json").write_text(json.dumps({"step": self._step, "parts": self._parts()}))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        kept = json.loads((folder / "rollouts.json").read_text())
        self._step, saved, today = kept["step"], kept["parts"], self._parts()
        if saved != today:  # the same batch, made up otherwise
            self._step = self._step // saved["accumulation"] * today["accumulation"]
        if self._is_in_rollout():
            if saved != today:
                raise RuntimeError(
                    f"{folder} is in the midst of a rollout, whose completions lie as {saved}, and this launch has "
                    f"{today}: launch it as before, or remove the folder to go on from the one before"
                )
            path = self._rollouts(folder)
            batches: list[dict[str, Tensor]] = [{} for _ in range(self.batches_of_rollout())]
            for name, value in load_file(path).items():
                part, key = name.split("/")
                batches[int(part)][key] = value.to(self.accelerator.device)
            self._buffered_inputs = batches

    def _parts(self) -> dict[str, int]:
        """What makes up the batch of an optimizer step here."""
        return {
            "size": self.args.per_device_train_batch_size,
            "accumulation": self.args.gradient_accumulation_steps,
            "ranks": self.accelerator.num_processes,
        }

    def _is_in_rollout(self) -> bool:
        return self._step % self.micro_batches_of_rollout() != 0

    def batches_of_rollout(self) -> int:
        """The batches that a rollout is cut into."""
        return self.args.steps_per_generation

    def micro_batches_of_rollout(self) -> int:
        """How often a batch is learned from until the next rollout, whichever batch it is."""
        return self.batches_of_rollout() * self.num_iterations

    def _rollouts(self, folder: Path) -> Path:
        return folder / f"rollouts-{self.accelerator.process_index}.safetensors"


class _EpochSampler(Sampler):
    """trl's RepeatSampler with an order of each epoch that depends on nothing else."""

    def __init__(self, sampler: Any):
        self.sampler, self.epoch = sampler, 0

    def __iter__(self) -> Iterator[int]:
        if self.sampler.shuffle:
            self.sampler.generator.manual_seed((self.sampler.seed or 0) + self.epoch)
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)


class _SeedEpoch(TrainerCallback):
    """Tells the sampler its epoch; accelerate's set_epoch does not reach it behind the wrappers of several ranks."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.trainer.epoch_sampler.epoch = int((state.epoch or 0) + 1e-6)
