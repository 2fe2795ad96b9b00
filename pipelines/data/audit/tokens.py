"""The tokens of every row: how long texts are, where their answers begin and end, how far two answers agree."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.pipelines.data.audit.facts import Facts
from trimtab.pipelines.planning.files import fingerprint
from trimtab.rewards import _rendering
from trimtab.rewards._rendering import Texts, Tokens, Unrenderable

BATCH = 256  # rows that are rendered and tokenised at a time
NEVER, MASKED = -1, -2  # in the place of an end: there is none, or none that is learned


class TokenAudit:
    """Renders and tokenises rows batch by batch, and keeps of each answer four numbers, and of each pair one.

    `answers` in the facts' arrays is (answers, 4): the row, the length in tokens, where what is learned begins, and
    the first end-of-sequence token that is learned. `pairs` is (pairs, 3): the answers' places in `answers`, and how
    many tokens they have in common at their beginning. `prompts` is (prompts, 2): the row and the length of each, 0
    where nothing is asked; of a row with several answers it stands there for each.
    The rows `broken` cannot be rendered and are left out.
    """

    def __init__(self, tokenizer: Any, columns: Sequence[str], *, learned: bool, broken: Collection[int] = ()):
        self.tokenizer, self.columns, self.learned, self.broken = tokenizer, columns, learned, broken
        self.facts = Facts()
        self.answers: list[tuple[int, int, int, int]] = []
        self.pairs: list[tuple[int, int, int]] = []
        self.prompts: list[tuple[int, int]] = []

    def read(self, rows: Any) -> Facts:
        """The facts of all rows of a dataset."""
        for number in range(0, len(rows), BATCH):
            batch = rows.select(range(number, min(number + BATCH, len(rows)))).to_list()
            if "input_ids" in self.columns:
                for place, row in enumerate(batch, start=number):
                    labels = row.get("labels") or row["input_ids"]
                    self._answer(place, row["input_ids"], 0, [label != -100 for label in labels])
            else:
                self._rendered(batch, number)
        arrays = self.facts.arrays
        arrays["answers"] = np.array(self.answers, dtype=np.int32).reshape(-1, 4)
        arrays["pairs"] = np.array(self.pairs, dtype=np.int32).reshape(-1, 3)
        arrays["prompts"] = np.array(self.prompts, dtype=np.int32).reshape(-1, 2)
        self.facts.count = len(rows)
        return self.facts

    def _rendered(self, batch: Sequence[Mapping[str, Any]], number: int) -> None:
        texts: list[Texts] = []
        places: list[int] = []
        for place, row in enumerate(batch, start=number):
            if place in self.broken:
                continue
            try:
                of_row = [self._text(prompt, answer, row) for prompt, answer in self._parts(row)]
            except Unrenderable as error:
                self.facts.add("template", [place], str(error))
                continue
            texts += of_row
            places += [place] * len(of_row)
        first: dict[int, tuple[int, Tokens]] = {}
        for place, said, tokens in zip(places, texts, _rendering.tokenised(self.tokenizer, texts), strict=True):
            is_blank = not self.learned and _is_blank(batch[place - number]["prompt"])
            self.prompts.append((place, 0 if is_blank else len(tokens.prompt)))
            if not self.learned:
                continue
            if said.prompt and said.whole.startswith(said.prompt) and tokens.start < len(tokens.prompt):
                end = self.tokenizer.decode(tokens.prompt[tokens.start :])
                self.facts.add("joined", [place], f"{end!r} at the prompt's end becomes one token with the answer")
            start = 0 if "messages" in self.columns else tokens.start
            self._answer(place, tokens.ids, tokens.start, None, start)
            if "chosen" in self.columns and place in first:
                one, others = first[place]
                common = _common(others.ids, tokens.ids)
                self.pairs.append((one, len(self.answers) - 1, common))
            first[place] = (len(self.answers) - 1, tokens)

    def _text(self, prompt: Any, answer: Any, row: Mapping[str, Any]) -> Texts:
        if self.learned:
            return _rendering.texts(self.tokenizer, prompt, answer, row)
        if isinstance(prompt, str):
            return Texts(prompt, prompt, is_chat=False)
        opened = _rendering.conversation(self.tokenizer, prompt, row, opened=True)
        return Texts(opened, opened, is_chat=True)

    def _parts(self, row: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
        """(prompt, answer) of each answer in a row."""
        if not self.learned:
            yield row["prompt"], None
        elif "messages" in self.columns:
            roles = [message["role"] for message in row["messages"]]
            begins = roles.index("assistant") if "assistant" in roles else 0
            yield row["messages"][:begins], row["messages"][begins:]
        elif "text" in self.columns:
            yield None, row["text"]
        else:
            for column in ("chosen", "rejected", "completion"):
                if column in self.columns:
                    yield row.get("prompt"), row[column]
            for answer in row["completions"] if "completions" in self.columns else ():
                yield row["prompt"], answer

    def _answer(
        self, row: int, ids: Sequence[int], answer: int, learned: Sequence[bool] | None, start: int = 0
    ) -> None:
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if begin is not None and len(ids) > 1 and ids[0] == ids[1] == begin:
            self.facts.add("two_bos", [row], f"two beginning-of-sequence tokens {self.tokenizer.bos_token!r}")
        if learned is not None:
            start = answer = next((place for place, is_learned in enumerate(learned) if is_learned), len(ids))
        self.answers.append((row, len(ids), start, _end(ids, end, answer, learned)))


def _end(ids: Sequence[int], end: int, answer: int, learned: Sequence[bool] | None) -> int:
    """The place of the first end-of-sequence token from `answer` on that is learned, or NEVER, or MASKED."""
    place = answer - 1
    while end in ids[place + 1 :]:
        place = ids.index(end, place + 1)
        if learned is None or learned[place]:
            return place
    return MASKED if learned is not None and end in ids else NEVER


def identity(tokenizer: Any) -> str:
    """What a tokenizer makes of a text, in eight digits: its vocabulary and rules, special tokens and template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    special = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token]
    return fingerprint([rules, special, tokenizer.chat_template])


def _is_blank(prompt: Any) -> bool:
    """Whether a prompt is white space alone; messages with a call of a tool, or with parts, are not."""
    if isinstance(prompt, str):
        return not prompt.strip()
    return all(isinstance(message.get("content"), str) and not message["content"].strip() for message in prompt)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(np.asarray(first[:length]) != np.asarray(second[:length]))
    return int(differ[0]) if len(differ) else length
