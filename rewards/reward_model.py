"""Reward kind `reward_model`: a sequence-classification checkpoint, ours, the Hub's or a local one.

rewards: {helpful: {kind: reward_model, path: $helpful}}
"""

from dataclasses import dataclass
from typing import Any

import torch

from rewards import text


@dataclass(kw_only=True)
class RewardModel:
    """The scalar at the last token, of the conversation rendered by the reward model's own chat template.

    Text in another format than chat is tokenised as its training was: with special tokens, and the end-of-sequence
    token after it. Completions are batched by length, `batch_size` at a time. Raises ValueError for a checkpoint
    without a trained head, or with another number of outputs than one.
    """

    path: str
    revision: str = "main"
    batch_size: int = 32
    dtype: str = "float32"
    device: str | None = None

    def __post_init__(self) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(self.path, revision=self.revision)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            self.path, revision=self.revision, dtype=getattr(torch, self.dtype), output_loading_info=True
        )
        missing = sorted(report["missing_keys"])
        if missing:
            raise ValueError(
                f"reward_model: {self.path} has no trained head ({', '.join(missing)} would be random): "
                "give a sequence-classification checkpoint, such as the artifact of a `reward` stage"
            )
        if model.config.num_labels != 1:
            raise ValueError(
                f"reward_model: {self.path} has {model.config.num_labels} outputs; a reward model has one"
            )
        if model.config.get_text_config().pad_token_id is None:  # or the last token could not be found
            model.config.get_text_config().pad_token_id = self._tokenizer.pad_token_id
        self._model = model.to(self.device or _device()).eval()

    @torch.no_grad()
    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float]:
        ids = [self._encode(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        scores = [0.0] * len(ids)
        for start in range(0, len(order), self.batch_size):
            block = order[start : start + self.batch_size]
            batch = self._tokenizer.pad(
                {"input_ids": [ids[i] for i in block]}, padding_side="right", return_tensors="pt"
            )
            logits = self._model(**batch.to(self._model.device)).logits[:, 0].float().tolist()
            for i, score in zip(block, logits, strict=True):
                scores[i] = score
        return scores

    def _encode(self, prompt: Any, completion: Any) -> list[int]:
        if isinstance(prompt, str):
            whole = prompt + text(completion)
            eos = self._tokenizer.eos_token or ""
            return self._tokenizer(whole if whole.endswith(eos) else whole + eos)["input_ids"]
        answer = completion if not isinstance(completion, str) else [{"role": "assistant", "content": completion}]
        return self._tokenizer.apply_chat_template(prompt + answer, return_dict=True)["input_ids"]


def _device() -> torch.device:
    from accelerate import PartialState

    return PartialState().device
