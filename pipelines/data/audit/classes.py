"""What can be wrong with a row, class by class, and what follows: the table that docs/data.md shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from trimtab.pipelines.planning.errors import RecipeError, suggest

Action = Literal["refuse", "drop", "warn"]


@dataclass(frozen=True)
class Class:
    """One thing that can be wrong with a row.

    `action` follows while at most the share `limit` of the rows is of the class, and more of them are refused; an
    action that the recipe names follows at any share.
    """

    action: Action
    limit: float
    says: str
    cure: str


CLASSES = {
    "missing": Class("refuse", 0.0, "a null column, or a message without a role or a content",
        "fill it in or remove the row"),
    "content": Class("refuse", 0.0, "a text that is neither a string nor a list of messages with text, or a row "
        "that mixes the two", "write strings, or messages {role, content}, or see Layouts in docs/data.md"),
    "roles": Class("refuse", 0.0, "a role that the chat template does not know",
        "rename it (human -> user, gpt -> assistant), or see Layouts in docs/data.md"),
    "template": Class("refuse", 0.0, "a conversation that the chat template refuses",
        "change the rows, or take another template (train.chat_template_path)"),
    "labels": Class("refuse", 0.0, "a label that is not one of those that the stage knows",
        "write true for a good answer and false for a bad one"),
    "two_bos": Class("refuse", 0.0, "two beginning-of-sequence tokens",
        "the text or the chat template adds a second one: remove it"),
    "role_order": Class("warn", 0.5, "two turns of the same side in a row, a system message that is not the first, or "
        "an assistant that begins", "put a user's turn before each assistant's"),
    "last_speaker": Class("drop", 0.5, "a conversation to learn that does not end with the assistant",
        "remove the last turn"),
    "empty": Class("drop", 0.5, "an answer that is empty, or white space alone",
        "remove such rows"),
    "empty_rejected": Class("warn", 0.5, "a rejected answer that is empty, or white space alone",
        "remove such rows, unless the model is to be taught to answer at all"),
    "empty_turn": Class("warn", 0.5, "an empty message before the answer",
        "remove such messages"),
    "prompt_again": Class("drop", 0.1, "an answer that begins with the prompt that is also given",
        "cut the prompt off the answers, or leave out the column prompt"),
    "different_prompts": Class("drop", 0.1, "a pair whose two conversations are on different prompts",
        "pair answers to one prompt"),
    "equal_pairs": Class("drop", 0.1, "two answers that are equal, as they are or within max_length: there is nothing "
        "to prefer", "remove such rows, or raise train.max_length"),
    "prefix_pairs": Class("warn", 1.0, "one answer that is the beginning of the other",
        "see whether one was cut by accident"),
    "no_tokens": Class("drop", 0.5, "no tokens at all",
        "the tokenizer does not know this text: take another"),
    "unlearned": Class("drop", 0.5, "nothing to learn: the answer is masked, or lies beyond max_length",
        "raise train.max_length, or shorten the prompts"),
    "joined": Class("warn", 1.0, "a prompt whose last token becomes another one in front of the answer, such as a "
        "blank that is joined with the first word: a policy is asked with other tokens than it has learned from",
        "let the prompt, or what the chat template puts before an answer, end in a mark or the end of a line"),
    "cut": Class("warn", 1.0, "longer than max_length",
        "raise train.max_length, or shorten the rows"),
    "endless": Class("warn", 0.9, "no end-of-sequence token is learned within max_length, and the model never learns "
        "to stop", "raise train.max_length"),
    "beyond_context": Class("drop", 0.1, "a prompt that leaves no room for the longest answer (max_new_tokens, "
        "max_completion_length) in the context of the policy, or of a reward model that reads it",
        "shorten it or the answers, take a model with a longer context, or write `overlong: drop` or "
        "`overlong: truncate_left` in the data block"),
    "overlong": Class("drop", 1.0, "a prompt of more than `max_prompt_tokens`",
        "raise max_prompt_tokens in the data block, or write `overlong: drop` or `overlong: truncate_left` there"),
    "empty_prompt": Class("refuse", 0.0, "a prompt that is empty, or white space alone",
        "write a prompt"),
    "duplicates": Class("warn", 1.0, "a row that stands in the data already",
        "remove it, unless it is to count twice"),
    "overlap": Class("warn", 1.0, "a row of eval_data, eval_prompts or eval_pairs that is also learned from",
        "remove it from one of them, or the evaluation measures memory"),
}  # fmt: skip


def known(block: Any, place: Sequence[str]) -> Any:
    """The block of a recipe that says what follows from which class. Raises RecipeError for a word of none."""
    for word in block if isinstance(block, Mapping) else ():
        if word not in CLASSES:
            words = ", ".join(CLASSES)
            raise RecipeError(f"unknown class of rows{suggest(word, CLASSES)} (known: {words})", (*place, str(word)))
    return block


Actions = Annotated[dict[str, Action], known]


def neutral(block: Mapping[str, Any]) -> Collection[str]:
    """The words of such a block that cannot change which rows are used.

    Rows that are refused are never used, so what counts is whether the recipe drops a class, and whether it would be
    dropped anyway.
    """
    drops = {word: of.action == "drop" for word, of in CLASSES.items()}
    return [word for word, action in block.items() if action == "refuse" or drops.get(word) == (action == "drop")]
