"""One conversation becomes token ids here, for everything that trains, samples, scores or counts.

    render(tokenizer, prompt, completion, row)    # Tokens: all ids, and where the answer's begin
    render_all(tokenizer, examples)               # the same of many rows, whose texts are tokenised together
    prompt_ids(tokenizer, prompt, row)            # what a policy is asked

They are token by token what trl's trainers prepare of the row (GRPO: of its prompts), with two columns of the row
honoured: `tools` (a list, or JSON) and `chat_template_kwargs`. A prompt of messages is followed by the generation
prompt, also where its last message is the assistant's. Text has the tokenizer's special tokens around it, and an
answer of text ends with its end-of-sequence token. A policy is asked without the special tokens that a tokenizer puts
behind a text: nothing is to be said after the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

from trimtab.rewards import describe, text

TEMPLATED = ("tools", "chat_template_kwargs")  # the columns of a row that its chat template sees
Example = tuple[Any, Any, Mapping[str, Any]]  # prompt, completion, row


class Unrenderable(ValueError):
    """Messages of which the chat template makes no text, in the template's own words."""


@dataclass(frozen=True)
class Texts:
    """A row as text. `is_chat` says that the special tokens stand in it; otherwise the tokenizer adds its own.

    `prompt` is what a policy is asked, None where the row has none; `whole` is prompt and answer.
    """

    prompt: str | None
    whole: str
    is_chat: bool


@dataclass(frozen=True)
class Tokens:
    """A row as token ids: those from `start` on are the answer's.

    `prompt` holds what a policy is asked. It is `ids[:start]`, unless the template renders a prompt in another way
    when an answer follows, or a token reaches over the border: a policy is then trained on another text than asked.
    """

    ids: list[int]
    start: int
    prompt: list[int]


def render(tokenizer: Any, prompt: Any, completion: Any, row: Mapping[str, Any] | None = None) -> Tokens:
    """The token ids of a prompt with its answer. Raises Unrenderable.

    Both are a string or messages; without a prompt (None or []) the completion is a text or a whole conversation.
    """
    return render_all(tokenizer, [(prompt, completion, row or {})])[0]


def render_all(tokenizer: Any, examples: Iterable[Example]) -> list[Tokens]:
    """The token ids of many rows, (prompt, completion, row) each. Raises Unrenderable."""
    return tokenised(tokenizer, [texts(tokenizer, *example) for example in examples])


def prompt_ids(tokenizer: Any, prompt: Any, row: Mapping[str, Any] | None = None) -> list[int]:
    """The token ids that a policy is asked. Raises Unrenderable."""
    if isinstance(prompt, str):
        ids = tokenizer(prompt, verbose=False)["input_ids"]
        return ids[: len(ids) - len(added(tokenizer)[1])]
    return _ids(tokenizer, [conversation(tokenizer, prompt, row or {}, opened=True)], special=False)[0]


def texts(tokenizer: Any, prompt: Any, completion: Any, row: Mapping[str, Any]) -> Texts:
    """A prompt with its answer as text. Raises Unrenderable."""
    if isinstance(prompt or completion, str):
        end, said = tokenizer.eos_token or "", text(completion)
        return Texts(prompt, (prompt or "") + said + ("" if said.endswith(end) else end), is_chat=False)
    answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
    whole = conversation(tokenizer, [*(prompt or []), *answer], row)
    return Texts(conversation(tokenizer, prompt, row, opened=True) if prompt else None, whole, is_chat=True)


def tokenised(tokenizer: Any, rows: Sequence[Texts]) -> list[Tokens]:
    """The token ids of rows as text; equal texts, such as the prompt of several answers, are tokenised once."""
    ids: dict[tuple[str, bool], list[int]] = {}
    for is_chat in {row.is_chat for row in rows}:
        strings = [(row.prompt, row.whole) for row in rows if row.is_chat == is_chat]
        unique = [string for string in dict.fromkeys(chain.from_iterable(strings)) if string is not None]
        encoded = _ids(tokenizer, unique, special=not is_chat)
        ids |= {(string, is_chat): tokens for string, tokens in zip(unique, encoded, strict=True)}
    behind = len(added(tokenizer)[1])
    prepared = []
    for row in rows:
        whole = ids[row.whole, row.is_chat]
        asked = [] if row.prompt is None else ids[row.prompt, row.is_chat]
        start = _shared(asked, whole)
        prepared.append(Tokens(whole, start, asked if row.is_chat else asked[: max(0, len(asked) - behind)]))
    return prepared


def conversation(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], row: Mapping[str, Any], *, opened: bool = False
) -> str:
    """Messages as the chat template renders them for a row; `opened` for an answer. Raises Unrenderable."""
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=opened, **template_arguments(row)
        )
    except TemplateError as error:
        raise Unrenderable(f"the chat template says: {error}") from error
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Unrenderable(f"the chat template fails: {describe(error)}") from error


def template_arguments(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says to its chat template, in its columns TEMPLATED."""
    tools, settings = (_parsed(row.get(column)) for column in TEMPLATED)
    return {"tools": tools, **(settings or {})}


def added(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and behind a text."""
    bare = tokenizer("x", add_special_tokens=False)["input_ids"]
    whole = tokenizer("x")["input_ids"]
    places = range(len(whole) - len(bare) + 1)
    start = next((place for place in places if whole[place : place + len(bare)] == bare), 0)
    return whole[:start], whole[start + len(bare) :]


def with_special_tokens(tokenizer: Any, row: Texts) -> Texts:
    """A row as text with all its special tokens, for those who tokenise without adding any."""
    if row.is_chat:
        return row
    begin, end = ("".join(tokenizer.convert_ids_to_tokens(ids)) for ids in added(tokenizer))
    prompt = None if row.prompt is None else begin + row.prompt.removeprefix(begin)
    return Texts(prompt, begin + row.whole.removeprefix(begin) + end, is_chat=True)


def rows_of(columns: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """What each of `count` completions' rows says to its template, from the columns that a reward is given."""
    given = [column for column in TEMPLATED if columns.get(column) is not None]
    return [{column: columns[column][index] for column in given} for index in range(count)]


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _ids(tokenizer: Any, strings: Sequence[str], *, special: bool) -> list[list[int]]:
    return tokenizer(list(strings), add_special_tokens=special, verbose=False)["input_ids"] if strings else []


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two rows of ids have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
