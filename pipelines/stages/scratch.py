"""Kind `scratch`: a tokenizer trained on a corpus and a small random model of any transformers architecture.

    scratch: {corpus: $world/sft, vocab_size: 1000, config: {model_type: llama, hidden_size: 128, num_hidden_layers: 4,
              num_attention_heads: 4, intermediate_size: 352}}

What a recipe starts from where no pretrained model is at hand: the embedded default, tests, experiments on one's own
text. The tokenizer is byte-level BPE (or one token per word and punctuation mark, for a small closed vocabulary) with
tokens for padding, for the roles of a chat and for the end of a turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import trl

from pipelines import data
from pipelines.data import Data
from pipelines.errors import RecipeError
from pipelines.stages import Stage
from rewards import text

PAD, SYSTEM, USER, ASSISTANT, END, UNKNOWN = (
    "<|pad|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|unknown|>",
)
# The generation marks let trl's assistant_only_loss find what the model itself says.
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TEXT = (("text",), ("messages",), ("prompt",), ("completion",), ("chosen",))


@dataclass(kw_only=True)
class Scratch(Stage):
    """`config` goes to transformers' AutoConfig.for_model; vocabulary and special tokens are filled in."""

    corpus: Data
    config: dict[str, Any] = field(default_factory=lambda: {"model_type": "llama"})
    tokenizer: Literal["bpe", "word"] = "bpe"
    vocab_size: int = 2000
    max_length: int = 1024
    chat_template: Path | None = None

    def check(self, step):
        from transformers import CONFIG_MAPPING

        kind = self.config.get("model_type")
        if kind not in CONFIG_MAPPING:
            raise RecipeError(f"transformers has no model_type {kind!r}", (*step.path, "config", "model_type"))
        if self.chat_template and not self.chat_template.is_file():
            raise RecipeError(f"no such file: {self.chat_template}", (*step.path, "chat_template"))
        data.check(self.corpus, step, "corpus", TEXT)

    def run(self, step):
        from accelerate import PartialState
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

        if not PartialState().is_main_process:
            return {}
        tokenizer = self._tokenizer(step)
        set_seed(step.seed)
        config = AutoConfig.for_model(
            **{"max_position_embeddings": self.max_length, **self.config},
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
        tokenizer.save_pretrained(step.output)
        config.save_pretrained(step.output)
        # an architecture may have a tokenizer class of its own, which adds tokens when it is loaded (qwen2's does)
        config.vocab_size = len(AutoTokenizer.from_pretrained(step.output))
        model = AutoModelForCausalLM.from_config(config)
        model.save_pretrained(step.output)
        return {"parameters": model.num_parameters(), "vocabulary": len(tokenizer)}

    def _tokenizer(self, step: Any) -> Any:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        special = [PAD, END, SYSTEM, USER, ASSISTANT]
        common = {"vocab_size": self.vocab_size, "special_tokens": special, "show_progress": False}
        if self.tokenizer == "bpe":
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(**common, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        else:
            special.append(UNKNOWN)
            tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation()]
            )
            tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
            trainer = trainers.WordLevelTrainer(**common)
        tokenizer.train_from_iterator(self._texts(step), trainer)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token=PAD,
            eos_token=END,
            additional_special_tokens=[SYSTEM, USER, ASSISTANT],
            model_max_length=self.max_length,
            **({"unk_token": UNKNOWN} if self.tokenizer == "word" else {}),
        )
        fast.chat_template = self.chat_template.read_text() if self.chat_template else TEMPLATE
        return fast

    def _texts(self, step: Any) -> Iterator[str]:
        for entry in self.corpus.datasets:  # one by one: a corpus may mix columns
            rows = data.load(trl.DatasetMixtureConfig(datasets=[entry]), (*step.path, "corpus"))
            columns = [name for form in TEXT for name in form if name in rows.column_names] + ["rejected"]
            for row in rows:
                yield from (text(row[column]) for column in columns if row.get(column))
