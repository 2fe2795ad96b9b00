"""Kind `scratch`: a tokenizer trained on a corpus and a small random model of any transformers architecture.

    scratch: {corpus: $world/sft, vocab_size: 1000, config: {model_type: llama, hidden_size: 128, num_hidden_layers: 4,
              num_attention_heads: 4, intermediate_size: 352}}

What a recipe starts from where no pretrained model is at hand: the embedded default, tests, experiments on one's own
text. The tokenizer is byte-level BPE (or one token per word and punctuation mark, for a small closed vocabulary) with
tokens for padding, for the roles of a chat and for the end of a turn. `added_tokens: ["<|thinking|>", ...]` are
further ones, whole wherever they stand, which stay in the text of answers; `vocab_size` counts them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import trl

from trimtab.pipelines.data import counting, loading
from trimtab.pipelines.data.forms import CORPUS, Data
from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.planning import memos
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.pipelines.training import added_tokens, from_scratch
from trimtab.rewards import text

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


@dataclass(kw_only=True)
class Scratch(Stage):
    """`config` goes to transformers' AutoConfig.for_model; vocabulary and special tokens are filled in."""

    corpus: Annotated[Data, CORPUS]
    config: dict[str, Any] = field(default_factory=lambda: {"model_type": "llama"})
    tokenizer: Literal["bpe", "word"] = "bpe"
    vocab_size: int = 2000
    max_length: int = 1024
    chat_template: Path | None = None
    added_tokens: list[str] = field(default_factory=list)

    neutral_when_empty: ClassVar[tuple[str, ...]] = ("added_tokens",)
    head: ClassVar[Literal["words", "score"] | None] = "words"
    shows: ClassVar[Shows] = Shows(results=("parameters", "vocabulary"))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        family = (block.get("config") or {}).get("model_type", "llama")
        config = {"model_type": family, **from_scratch.SMALLEST}
        return {**super().small(block, miniature), "vocab_size": 400, "config": config}

    def check(self, step: Step) -> None:
        kind = self.config.get("model_type")
        if not memos.recalled("model_types", kind, lambda: from_scratch.is_known(kind)):
            raise RecipeError(f"transformers has no model_type {kind!r}", (*step.path, "config", "model_type"))
        if self.chat_template and not self.chat_template.is_file():
            raise RecipeError(f"no such file: {self.chat_template}", (*step.path, "chat_template"))
        if message := added_tokens.wrong(self.added_tokens):
            raise RecipeError(message, (*step.path, "added_tokens"))
        super().check(step)

    def work(self, known: Known) -> Work:
        return Work(prepared=super().work(known).handled, leaves=known.model(self.makes()))

    def folders(self) -> Collection[str]:
        return ()

    def makes(self) -> dict[str, Any]:
        return {"max_position_embeddings": self.max_length, **self.config, "vocab_size": self.vocab_size}

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        if not PartialState().is_main_process:
            return {}
        tokenizer = from_scratch.make_tokenizer(
            self._texts(step),
            kind=self.tokenizer,
            vocab_size=self.vocab_size - len(self.added_tokens),
            max_length=self.max_length,
            chat_template=self.chat_template.read_text() if self.chat_template else from_scratch.TEMPLATE,
        )
        try:
            added_tokens.add(tokenizer, self.added_tokens)
        except ValueError as error:
            raise RecipeError(str(error), (*step.path, "added_tokens")) from error
        model = from_scratch.save_model(
            tokenizer, self.config, step.output, seed=step.seed, max_length=self.max_length
        )
        return {"parameters": model.num_parameters(), "vocabulary": len(tokenizer)}

    def _texts(self, step: Step) -> Iterator[str]:
        datasets = [trl.DatasetMixtureConfig(datasets=[entry]) for entry in self.corpus.datasets]
        # one by one: a corpus may mix columns
        whole = loading.Loaded.beside([loading.read(one, (*step.path, "corpus")) for one in datasets])
        counting.note(self.corpus, whole, range(sum(map(len, whole.parts))), step, "corpus")
        for rows in whole.parts:
            columns = [name for name in chain.from_iterable(CORPUS.columns) if name in rows.column_names]
            for row in rows:
                yield from (text(row[name]) for name in [*columns, "rejected"] if row.get(name))
