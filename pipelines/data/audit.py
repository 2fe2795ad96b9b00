"""The audit looks at the rows and tokens of a dataset before a model is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.data.forms import Form, makers
from trimtab.pipelines.data.loading import files, load
from trimtab.pipelines.planning import hub
from trimtab.pipelines.planning.errors import RecipeError, suggest

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from trimtab.pipelines.planning.recipe import Step

TEXTUAL = ("prompt", "completion", "chosen", "rejected", "messages", "text", "completions")
AUDITED = 500  # rows whose text and tokens are looked at
TOLERATED = 0.1  # share of pairs with two equal answers that are dropped with a count instead of refused


def check(
    data: trl.DatasetMixtureConfig,
    step: Step,
    key: str,
    form: Form,
    tokenizer: PreTrainedTokenizerBase | None = None,
    train: Any = None,
) -> None:
    """Raises RecipeError unless every dataset of the mixture has the form's columns and whole rows.

    Where a tokenizer is given, what the form's `audit` names is looked at too. Datasets that a step above has still to
    make are left for later.
    """
    for entry in data.datasets:
        if any(step.pending(name) for name in files(entry)):
            continue
        place, source = (*step.path, *key.split(".")), ", ".join(files(entry))
        rows = load(trl.DatasetMixtureConfig(datasets=[entry]), place)
        if len(rows) == 0:
            raise RecipeError(f"{source} has no rows in split {entry.split!r}", place)
        columns = _columns(rows.column_names, form, source, place)
        if "input_ids" not in columns:
            _check_cells(rows, columns, source, place)
        if "pairs" in form.audit:
            _check_pairs(rows, source, place)
        if tokenizer is None:
            continue
        if "prompts" in form.audit and not isinstance(rows[0]["prompt"], str):
            _check_template(tokenizer, place)
        if "tokens" in form.audit:
            _check_tokens(rows, columns, tokenizer, train, source, place)


def check_columns(data: trl.DatasetMixtureConfig, step: Step, key: str, form: Form) -> None:
    """The part of `check` that costs little: the columns of the files that are here. Raises RecipeError."""
    for entry in data.datasets:
        if any(step.pending(name) or hub.is_name(name) for name in files(entry)):
            continue
        place = (*step.path, *key.split("."))
        rows = load(trl.DatasetMixtureConfig(datasets=[entry]), place)
        _columns(rows.column_names, form, ", ".join(files(entry)), place)


def _columns(columns: list[str], form: Form, source: str, place: Sequence[str]) -> Sequence[str]:
    for wanted in form.columns:
        if set(wanted) <= set(columns):
            return wanted
    nearest = max(form.columns, key=lambda wanted: len(set(wanted) & set(columns)))
    missing = next(name for name in nearest if name not in columns)
    others = [column for column in columns if column not in nearest]
    needed = " or ".join(" + ".join(wanted) for wanted in form.columns)
    stages = makers(form)
    cure = f"Stages of kind {' or '.join(stages)} leave such rows" if stages else "Rename it in the file"
    raise RecipeError(
        f"{source} has no column {missing!r}{suggest(missing, others)} "
        f"(it has: {', '.join(columns)}; needed: {needed}). {cure}",
        place,
    )


def _check_cells(rows: Dataset, columns: Sequence[str], source: str, place: Sequence[str]) -> None:
    for column in dict.fromkeys([*columns, *({"prompt"} & set(rows.column_names))]):
        for index, cell in enumerate(rows[:AUDITED][column]):
            if cell is None:
                raise RecipeError(f"{source}, row {index}: column {column!r} is null", place)
            if column in TEXTUAL and not isinstance(cell, str | list):
                raise RecipeError(f"{source}, row {index}: column {column!r} is {type(cell).__name__}", place)
            messages = cell if isinstance(cell, list) and cell and isinstance(cell[0], dict) else ()
            if any(not {"role", "content"} <= message.keys() for message in messages):
                raise RecipeError(f"{source}, row {index}: {column!r} needs messages with role and content", place)
            last = messages[-1]["role"] if messages else None
            if column in ("completion", "chosen", "rejected") and last not in (None, "assistant"):
                raise RecipeError(f"{source}, row {index}: {column!r} ends with a message of role {last!r}", place)
        total = rows.with_format("arrow")[:][column].null_count
        if total:
            raise RecipeError(f"{source}: column {column!r} is null in {total} of {len(rows)} rows", place)


def _check_pairs(rows: Dataset, source: str, place: Sequence[str]) -> None:
    head = rows[:AUDITED]
    pairs = list(zip(head["chosen"], head["rejected"], strict=True))
    equal = [index for index, (chosen, rejected) in enumerate(pairs) if chosen == rejected]
    if len(equal) > TOLERATED * len(pairs):
        raise RecipeError(
            f"{source}, row {equal[0]}: chosen equals rejected, as in {len(equal)} of the first {len(pairs)} rows: "
            "there is nothing to prefer. Remove them or swap the right column in",
            place,
        )


@dataclass
class _Answers:
    """What the tokens of answers are like; rows are those of the dataset, one for each such answer."""

    count: int = 0
    empty: list[int] = field(default_factory=list)  # rows of answers without tokens
    masked: list[int] = field(default_factory=list)  # rows of answers with nothing to learn within the limit
    whole: int = 0  # answers that are neither and end within the limit
    ending: int = 0  # of these, those with an end-of-sequence token that is learned
    hidden: int = 0  # of these, those whose end-of-sequence tokens are all masked

    def add(self, row: int, ids: list[int], learned: list[bool], limit: int | None, end: int | None) -> None:
        """Counts one answer; `end` is the end-of-sequence token."""
        self.count += 1
        if not ids:
            self.empty.append(row)
        elif not any(learned[:limit]):
            self.masked.append(row)
        elif limit is None or len(ids) <= limit:
            ends = [is_learned for token, is_learned in zip(ids, learned, strict=True) if token == end]
            self.whole += 1
            self.ending += any(ends)
            self.hidden += bool(ends) and not any(ends)


def _check_tokens(
    rows: Dataset,
    columns: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    train: Any,
    source: str,
    place: Sequence[str],
) -> None:
    limit = getattr(train, "max_length", None)
    answers = _Answers()
    for index, row in enumerate(rows.select(range(min(AUDITED, len(rows))))):
        for ids, learned in _tokens(row, columns, tokenizer, place):
            if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
                raise RecipeError(
                    f"{source}, row {index}: two beginning-of-sequence tokens {tokenizer.bos_token!r}:"
                    " the text or the chat template adds a second one",
                    place,
                )
            answers.add(index, ids, learned, limit, tokenizer.eos_token_id)
    if len(answers.empty) > answers.count / 2:
        name = getattr(tokenizer, "name_or_path", "") or "the tokenizer"
        raise RecipeError(
            f"{source}, row {answers.empty[0]}: no tokens at all, as in {len(answers.empty)} of {answers.count} "
            f"answers: {name} does not know this text",
            place,
        )
    if len(answers.masked) > answers.count / 2:
        raise RecipeError(
            f"{source}, row {answers.masked[0]}: nothing to learn, as in {len(answers.masked)} of {answers.count} "
            f"answers: the answer is empty, masked or beyond max_length ({limit})",
            place,
        )
    if answers.whole and not answers.ending:
        reason = _why_no_end(tokenizer, hidden=answers.hidden > 0)
        raise RecipeError(f"{source}: {reason}, or the model never learns to stop", place)


def _why_no_end(tokenizer: PreTrainedTokenizerBase, *, hidden: bool) -> str:
    eos = tokenizer.eos_token
    if not hidden:
        return (
            f"no answer ends with the tokenizer's end-of-sequence token {eos!r}: "
            "set train.eos_token to the token that ends a turn in the chat template"
        )
    masked = f"the end-of-sequence token {eos!r} is masked out of the loss"
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return f"{masked}: unmask it in the labels"
    return (
        f"{masked}, and it is also the padding token: give the tokenizer a padding token of its own (train.pad_token) "
        "and build the labels anew"
    )


def _check_template(tokenizer: Any, place: Sequence[str]) -> None:
    if not tokenizer.chat_template:
        raise RecipeError(
            "the data is conversational but the tokenizer has no chat template: train it with sft's "
            "train.chat_template_path, or use data of plain text",
            place,
        )


def _tokens(
    row: dict[str, Any], columns: Sequence[str], tokenizer: Any, place: Sequence[str]
) -> Iterator[tuple[list[int], list[bool]]]:
    """(token ids, which of them are learned) for each answer in a row, tokenised as trl's trainers do."""
    if "input_ids" in columns:
        labels = row.get("labels") or row["input_ids"]
        yield row["input_ids"], [label != -100 for label in labels]
        return
    answers = {"messages": ["messages"], "text": ["text"], "chosen": ["chosen", "rejected"]}
    for column in answers.get(columns[0], ["completion"] if "completion" in columns else ["completions"]):
        for answer in row[column] if column == "completions" else [row[column]]:
            prompt = row.get("prompt") if column not in ("messages", "text") else None
            if isinstance(answer, str):
                ids = tokenizer((prompt or "") + answer + tokenizer.eos_token)["input_ids"]
                start = len(tokenizer(prompt)["input_ids"]) if prompt else 0
                yield ids, [position >= min(start, len(ids)) for position in range(len(ids))]
                continue
            _check_template(tokenizer, place)
            if not answer:
                yield [1], [False]
                continue
            ids = tokenizer.apply_chat_template((prompt or []) + answer, return_dict=True)["input_ids"]
            start = 0
            if prompt:
                opened = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)
                start = len(opened["input_ids"])
            yield ids, [position >= start for position in range(len(ids))]
