"""What both sides work on: a random Llama with a vocabulary learned on the data, and rows of their own lengths."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import datasets
import transformers

from trimtab.pipelines.training import from_scratch

SHAPES = {  # layers, hidden size; an attention head has 64, and the MLP 2.75 times the hidden size
    "7m": (6, 256),
    "30m": (8, 512),
    "tiny": (2, 64),
}
LONGEST = 1024  # tokens of a prompt with its answer
WORDS = 20_000  # rows that a vocabulary is learned on, at most


@dataclass
class Material:
    """A model's path, its tokenizer, and pairs in random order: `prompt`, `chosen` and `rejected` in chat form."""

    folder: Path
    path: str
    tokenizer: Any
    pairs: list[dict[str, Any]]
    parameters: int
    embedded: int  # of them, those of the embeddings, which are the head's

    def rendered(self, row: dict[str, Any], answer: str) -> list[int]:
        """The token ids of a prompt with one of its answers."""
        return self.ids(row["prompt"] + row[answer])

    def ids(self, messages: list[dict[str, str]], **options: Any) -> list[int]:
        """The token ids of a conversation."""
        return self.tokenizer.apply_chat_template(messages, return_dict=True, **options)["input_ids"]

    def prompt(self, row: dict[str, Any]) -> list[int]:
        """The token ids of a prompt that waits for its answer."""
        return self.ids(row["prompt"], add_generation_prompt=True)

    def needed(self, mode: str) -> float:
        """Thousands of tokens of the rows, each prompt once: of both answers, or the chosen one in `sft`."""
        answers = ("chosen",) if mode == "sft" else ("chosen", "rejected")
        count = 0
        for row in self.pairs:
            prompt = len(self.prompt(row))
            count += prompt + sum(len(self.rendered(row, answer)) - prompt for answer in answers)
        return count / 1000

    def multiplied(self, mode: str) -> int:
        """The weights that a token is multiplied with: a reward model has no words to choose from."""
        return self.parameters - self.embedded if mode in ("reward", "score") else self.parameters

    def write(self, name: str, rows: list[dict[str, Any]]) -> str:
        """A file of rows; returns its path."""
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)


def make(folder: Path, data: str, shape: str, vocabulary: int, count: int) -> Material:
    """The model of a shape, with `count` rows of `data` that fit in LONGEST tokens."""
    rows = datasets.load_dataset("json", data_files=data, split="train", cache_dir=str(folder / "cache"))
    path = folder / f"{shape}-{vocabulary}"
    if not path.exists():
        _make_model(path, rows, shape, vocabulary)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    embedded = len(tokenizer) * SHAPES[shape][1]
    material = Material(folder, str(path), tokenizer, [], _parameters(path), embedded)
    order = Random(0).sample(range(len(rows)), len(rows))
    columns = ("prompt", "chosen", "rejected")
    shuffled = ({name: rows[index][name] for name in columns} for index in order)
    fitting = (
        row for row in shuffled if max(len(material.rendered(row, answer)) for answer in columns[1:]) <= LONGEST
    )
    material.pairs = list(itertools.islice(fitting, count))
    return material


def _make_model(path: Path, rows: Any, shape: str, vocabulary: int) -> None:
    texts = [
        message["content"] for row in itertools.islice(rows, WORDS) for message in [*row["prompt"], *row["chosen"]]
    ]
    tokenizer = from_scratch.make_tokenizer(texts, vocab_size=vocabulary, max_length=LONGEST)
    layers, hidden = SHAPES[shape]
    config = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": int(2.75 * hidden),
        "num_hidden_layers": layers,
        "num_attention_heads": max(hidden // 64, 1),
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }
    path.mkdir(parents=True)
    from_scratch.save_model(tokenizer, config, path, seed=0)


def _parameters(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path / "model.safetensors", "pt") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    return sum(math.prod(shape) for shape in shapes)
