"""The batch at which a training's loss or weights stopped being numbers, for whoever looks for the row that did it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from trimtab.pipelines.trainers.micro_batches import parts
from trimtab.rewards import text

SHOWN = 400  # characters of each text


class BatchAtHand:
    """Keeps hold of what a trainer's step learns from, until the next one has its own."""

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self.batches: list[Any] = []
        self._draw = trainer.get_batch_samples
        trainer.get_batch_samples = self._drawn

    def _drawn(self, *args: Any) -> Any:
        batches, count = self._draw(*args)
        self.batches = [part for batch in batches for part in parts(batch)]
        return batches, count

    def save(self, folder: Path) -> Path:
        """Writes the texts of this rank's rows, and which of their numbers are none, into a small file."""
        rows = [row for batch in self.batches for row in self._rows(batch)]
        path = folder / f"batch-{self.trainer.accelerator.process_index}.json"
        step = self.trainer.state.global_step
        path.write_text(json.dumps({"after_step": step, "rows": rows}, indent=1, ensure_ascii=False) + "\n")
        return path

    def _rows(self, batch: Any) -> Iterator[dict[str, Any]]:
        if not isinstance(batch, Mapping):  # rows of which completions have still to be sampled
            for row in batch:
                yield {name: text(value)[:SHOWN] for name, value in row.items() if isinstance(value, str | list)}
            return
        tensors = {name: value for name, value in batch.items() if torch.is_tensor(value) and value.dim() > 0}
        for number in range(max(map(len, tensors.values()), default=0)):
            of_row = {name: value[number] for name, value in tensors.items() if number < len(value)}
            numbers = {name: value for name, value in of_row.items() if value.is_floating_point()}
            wrong = [name for name, value in numbers.items() if not value.isfinite().all()]
            yield {**self._texts(of_row), **({"no_number": wrong} if wrong else {})}

    def _texts(self, of_row: Mapping[str, torch.Tensor]) -> dict[str, str]:
        tokenizer = self.trainer.processing_class
        named = {name: ids for name, ids in of_row.items() if name.endswith("ids") and ids.dim() == 1}
        decoded = {name: tokenizer.decode(ids, skip_special_tokens=True) for name, ids in named.items()}
        return {name: words[:SHOWN] for name, words in decoded.items() if name != "position_ids"}
