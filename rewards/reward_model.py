"""Reward kind `reward_model`: a sequence-classification checkpoint, ours, the Hub's or a local one, or a LoRA of one.

rewards:
  helpful: {kind: reward_model, path: $helpful}
  safe: {kind: reward_model, path: org/two-headed, head: 1}
  calibrated: {kind: reward_model, path: $helpful, normalize: true}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from trimtab.rewards import Outcome, RewardFailure, settled
from trimtab.rewards._rendering import Texts, Unrenderable, rows_of, texts, tokenised, with_special_tokens

CALIBRATION = "reward_calibration.json"


@dataclass(kw_only=True)
class RewardModel:
    """The output `head` at the last token of the conversation, rendered by the reward model's own chat template.

    The columns `tools` and `chat_template_kwargs` go to that template, as they do in training.
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

    needs: ClassVar[str] = "score"  # the head that a checkpoint must have
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
        outcomes: list[Outcome] = []
        fit: list[list[int]] = []
        for row in encode(tokenizer, prompts, completions, columns):
            if isinstance(row, Unrenderable):
                outcomes.append(RewardFailure(f"{self.path}: {row}"))
            elif row and (context is None or len(row) <= context):
                outcomes.append(None)
                fit.append(row)
            else:
                outcomes.append(RewardFailure(f"{len(row)} tokens; the context of {self.path} is {context}"))
        logits = iter(self._checkpoint.logits(fit, self.tokens_per_batch))
        for index, outcome in enumerate(outcomes):
            if outcome is None:
                outcomes[index] = (next(logits)[self.head] - self._mean) / self._std
        return settled(outcomes)

    def features(self, prompts: list, completions: list, **columns: Any) -> list[list[float]]:
        """What the head reads: the hidden state at the last token of every conversation.

        Raises ValueError for one that the chat template refuses, and for one that is longer than the context.
        """
        self.load()
        tokenizer, context = self._checkpoint.tokenizer, self._checkpoint.context
        rows: list[list[int]] = []
        for row in encode(tokenizer, prompts, completions, columns):
            if isinstance(row, Unrenderable):
                raise ValueError(f"{self.path}: {row}")
            if context is not None and len(row) > context:
                raise ValueError(f"{len(row)} tokens; the context of {self.path} is {context}")
            rows.append(row)
        return self._checkpoint.features(rows, self.tokens_per_batch)

    def reader(self) -> tuple[Any, int | None]:
        """The checkpoint's tokenizer and the tokens of its context, without its weights. Raises OSError."""
        from transformers import AutoConfig, AutoTokenizer

        config = AutoConfig.from_pretrained(self.path, revision=self.revision).get_text_config()
        tokenizer = AutoTokenizer.from_pretrained(self.path, revision=self.revision)
        return tokenizer, getattr(config, "max_position_embeddings", None)

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
    tokenizer: Any, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any] | None = None
) -> list[list[int] | Unrenderable]:
    """Token ids of every prompt with its completion, as `trl.RewardTrainer` makes them in training: one list per row.

    The column `queries` holds whole texts that carry their special tokens, and are taken as they are. In the place of
    a conversation that the chat template refuses stands why.
    """
    columns = columns or {}
    if columns.get("queries") is not None:
        rendered: list[Texts | Unrenderable] = [Texts(None, query, is_chat=True) for query in columns["queries"]]
    else:
        rows = zip(prompts, completions, rows_of(columns, len(prompts)), strict=True)
        rendered = [_text(tokenizer, *row) for row in rows]
    ids = iter(tokenised(tokenizer, [row for row in rendered if isinstance(row, Texts)]))
    return [next(ids).ids if isinstance(row, Texts) else row for row in rendered]


def _text(tokenizer: Any, prompt: Any, completion: Any, row: Mapping[str, Any]) -> Texts | Unrenderable:
    try:
        return with_special_tokens(tokenizer, texts(tokenizer, None if prompt == [] else prompt, completion, row))
    except Unrenderable as error:
        return error
