"""Prompts that are too long, for a block's `max_prompt_tokens` or for a context: left out, cut at their left, refused.

A prompt of messages is cut by its oldest turns, down to its last one, and then by the beginning of what is left;
system messages stay. So the chat template always renders a conversation, and what is asked last is what is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trl import DatasetMixtureConfig

from trimtab.pipelines.data.forms import Form
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.rewards._rendering import prompt_ids

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.data.audit.classes import Action

CLASSES = ("overlong", "beyond_context")
ACTIONS: dict[str, Action] = {"drop": "drop", "truncate_left": "warn", "error": "refuse"}
Prompt = str | list[dict[str, Any]]


def require_prompts(form: Form, place: Sequence[str]) -> None:
    """Raises RecipeError where nobody counts the tokens of a block's prompts, and its keys would say nothing."""
    if not form.audit & {"tokens", "prompts"}:
        raise RecipeError(
            "`max_prompt_tokens` and `overlong` are about prompts that a policy reads: write them in the block of a "
            "stage that samples or trains",
            place,
        )


def require_column(block: DatasetMixtureConfig, columns: Sequence[str], place: Sequence[str]) -> None:
    """Raises RecipeError where prompts are to be cut that stand in no column of their own."""
    if is_cut(block, "overlong") and "prompt" not in columns:
        raise RecipeError(
            f"`truncate_left` cuts a column prompt, and these rows have {', '.join(columns)}: write `overlong: drop`",
            (*place, "overlong"),
        )


def is_cut(block: DatasetMixtureConfig, word: str) -> bool:
    """Whether a block has the prompts of this class cut."""
    return word in CLASSES and getattr(block, "overlong", None) == "truncate_left"


def truncated(rows: Dataset, numbers: Iterable[int], limits: Sequence[tuple[Any, int]]) -> Dataset:
    """The rows, with the prompts of `numbers` cut to every limit, (tokenizer, tokens) each. Raises ValueError."""
    long = set(map(int, numbers))

    def shorter(row: dict[str, Any], number: int) -> dict[str, Any]:
        prompt = row["prompt"]
        for tokenizer, limit in limits if number in long else ():
            prompt = _fitted(tokenizer, prompt, limit, row)
        return {"prompt": prompt}

    return rows.map(shorter, with_indices=True, features=rows.features)


def _fitted(tokenizer: Any, prompt: Prompt, limit: int, row: Mapping[str, Any]) -> Prompt:
    """A prompt of at most `limit` tokens as a policy is asked it."""

    def excess(prompt: Prompt) -> int:
        return len(prompt_ids(tokenizer, prompt, row)) - limit

    if isinstance(prompt, str):
        return _cut(tokenizer, prompt, excess)
    messages = list(prompt)
    turns = [place for place, message in enumerate(messages) if message.get("role") != "system"]
    while excess(messages) > 0 and len(turns) > 1:
        del messages[turns.pop(0)]
        turns = [place - 1 for place in turns]
    while len(turns) > 1 and messages[turns[0]].get("role") == "assistant":  # a conversation begins with a question
        del messages[turns.pop(0)]
        turns = [place - 1 for place in turns]
    place = turns[0]

    def excess_with(content: str) -> int:
        return excess([*messages[:place], {**messages[place], "content": content}, *messages[place + 1 :]])

    content = _cut(tokenizer, messages[place]["content"], excess_with)
    return [*messages[:place], {**messages[place], "content": content}, *messages[place + 1 :]]


def _cut(tokenizer: Any, text: str, excess: Callable[[str], int]) -> str:
    """The end of a text that leaves no excess of tokens; tokens that merge at the cut may take another one."""
    encoded = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=tokenizer.is_fast)
    ids = encoded["input_ids"]
    first, shorter, more = 0, text, excess(text)
    while more > 0:
        first += more
        if first >= len(ids):
            raise ValueError(f"a prompt has {more} tokens too many without a word of its text: raise the limit")
        shorter = text[encoded["offset_mapping"][first][0] :] if tokenizer.is_fast else tokenizer.decode(ids[first:])
        more = excess(shorter)
    return shorter
