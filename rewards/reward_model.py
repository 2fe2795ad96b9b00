"""Reward kind `reward_model`: a sequence-classification checkpoint, ours, the Hub's or a local one, or a LoRA of one.

rewards:
  helpful: {kind: reward_model, path: $helpful}
  safe: {kind: reward_model, path: org/two-headed, head: 1}
  calibrated: {kind: reward_model, path: $helpful, normalize: true}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from trimtab.rewards import Outcome, RewardFailure, settled, text

CALIBRATION = "reward_calibration.json"


@dataclass(kw_only=True)
class RewardModel:
    """The output `head` at the last token of the conversation, rendered by the reward model's own chat template.

    Text in another format than chat is tokenised as its training was: with special tokens, and the end-of-sequence
    token after it. Text that already carries its special tokens (it begins with the beginning-of-sequence token, or
    came as the column `queries`) gets no second ones. Rows are batched by length, at most `tokens_per_batch` tokens
    with their padding (by default 16384, and 2048 on a CPU). Rewards with the same checkpoint share one forward pass.

    `normalize: true` gives (score - mean) / std with the fixed numbers that a `reward` stage saved with its artifact;
    `normalize: {mean: 0.3, std: 1.2}` gives them here. Raises ValueError for a checkpoint without a trained head,
    without that head or without a calibration; a row longer than the model's context is a failure.
    """

    path: str
    revision: str = "main"
    head: int = 0
    tokens_per_batch: int | None = None
    normalize: bool | dict[str, float] = False
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str | None = None

    neutral: ClassVar[tuple[str, ...]] = ("device",)

    @staticmethod
    def small(block: dict[str, Any], miniature: Any) -> dict[str, Any]:
        """Of a shrunk run: a tiny model in the place of one from outside."""
        kept = {key: value for key, value in block.items() if key in ("kind", "path", "normalize", "head")}
        if not miniature.is_inside(block["path"]):
            kept["path"] = miniature.model(block["path"], scores=True)
            kept.pop("normalize", None)
        return kept

    def __post_init__(self) -> None:
        if self.head < 0 or (self.tokens_per_batch or 1) < 1:
            raise ValueError("reward_model: `head` is at least 0 and `tokens_per_batch` at least 1")
        if isinstance(self.normalize, dict) and (
            self.normalize.keys() != {"mean", "std"} or self.normalize["std"] <= 0
        ):
            raise ValueError(
                f"reward_model: `normalize` is true, false or {{mean, std}} with std > 0, got {self.normalize}"
            )
        self._checkpoint: Any = None

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        self.load()
        tokenizer, context = self._checkpoint.tokenizer, self._checkpoint.context
        ids = encode(tokenizer, prompts, completions, columns.get("queries"))
        outcomes: list[Outcome] = [
            RewardFailure(f"{len(row)} tokens; the context of {self.path} is {context}") for row in ids
        ]
        fit = [index for index, row in enumerate(ids) if row and (context is None or len(row) <= context)]
        logits = self._checkpoint.logits([ids[index] for index in fit], self.tokens_per_batch)
        for index, heads in zip(fit, logits, strict=True):
            outcomes[index] = (heads[self.head] - self._mean) / self._std
        return settled(outcomes)

    def load(self) -> None:
        """Loads the checkpoint, unless it is loaded. Called by the first call."""
        if self._checkpoint is not None:
            return
        from trimtab.rewards import _checkpoint

        checkpoint = _checkpoint.share(self.path, self.revision, self.dtype, self.device)
        if self.head >= checkpoint.heads:
            raise ValueError(f"{self.path} has {checkpoint.heads} outputs; there is no head {self.head}")
        self._mean, self._std = self._calibration()
        self._checkpoint = checkpoint

    def _calibration(self) -> tuple[float, float]:
        if isinstance(self.normalize, dict):
            return self.normalize["mean"], self.normalize["std"]
        if not self.normalize:
            return 0.0, 1.0
        from transformers.utils import cached_file

        try:
            calibration = json.loads(Path(cached_file(self.path, CALIBRATION, revision=self.revision)).read_text())
        except OSError:
            raise ValueError(
                f"{self.path} has no {CALIBRATION}: train it with `eval_data` or `calibrate`, or write "
                "`normalize: {mean: ..., std: ...}`"
            ) from None
        if not calibration["std"][self.head] > 0:
            raise ValueError(f"{self.path}: its calibration scores were all equal: it tells no answers apart")
        return calibration["mean"][self.head], calibration["std"][self.head]


def encode(
    tokenizer: Any, prompts: Sequence[Any], completions: Sequence[Any], queries: Sequence[str] | None = None
) -> list[list[int]]:
    """Token ids of every prompt with its completion, as `trl.RewardTrainer` makes them in training: one list per row.

    `queries` are whole texts that carry their special tokens, and are taken as they are.
    """
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
    rendered, special = [], []
    for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if queries is not None:
            whole, add = queries[index], False
        elif isinstance(prompt, str):
            whole = prompt + text(completion)
            whole = whole if whole.endswith(eos) else whole + eos
            add = not (bos and whole.startswith(bos))
        else:
            answer = completion if not isinstance(completion, str) else [{"role": "assistant", "content": completion}]
            whole, add = tokenizer.apply_chat_template([*prompt, *answer], tokenize=False), False
        rendered.append(whole)
        special.append(add)
    ids: list[list[int]] = [[] for _ in rendered]
    for add in (False, True):
        chosen = [index for index, wanted in enumerate(special) if wanted == add]
        if chosen:
            batch = tokenizer([rendered[index] for index in chosen], add_special_tokens=add, verbose=False)
            for index, row in zip(chosen, batch["input_ids"], strict=True):
                ids[index] = row
    return ids
