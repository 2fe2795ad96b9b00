"""Datasets in trl's formats: loading them, and looking at their rows and tokens before a model is built.

`data:` is `trl.DatasetMixtureConfig`. Three short forms are read as one: a path or hub name, one entry, or a list.

    data: trl-lib/ultrafeedback_binarized
    data: pairs.jsonl.gz                                    # json, jsonl, csv, parquet or txt, also compressed
    data: {path: $world/gold, split: test}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import trl

from pipelines.errors import RecipeError, suggest

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from pipelines.recipe import Step

BUILDERS = {"json": "json", "jsonl": "json", "csv": "csv", "parquet": "parquet", "txt": "text"}
SFT = (("messages",), ("prompt", "completion"), ("text",), ("input_ids",))
PREFERENCE = (("chosen", "rejected"),)
RANKING = (("prompt", "completions"),)
PROMPTS = (("prompt",),)
TEXTUAL = ("prompt", "completion", "chosen", "rejected", "messages", "text", "completions")
AUDITED = 500  # rows whose text and tokens are looked at
TOLERATED = 0.1  # share of pairs with two equal answers that are dropped with a count instead of refused


def mixture(value: Any, path: Sequence[str] = ()) -> Any:
    """The short forms of `data:` as the mapping that `trl.DatasetMixtureConfig` takes."""
    if isinstance(value, Mapping) and "datasets" in value:
        return {**value, "datasets": [_entry(entry) for entry in value["datasets"]]}
    if isinstance(value, Mapping) and not {"path", "data_files"} & set(value):
        return value  # unknown keys: the check names them
    return {"datasets": [_entry(entry) for entry in (value if isinstance(value, list) else [value])]}


Data = Annotated[trl.DatasetMixtureConfig, mixture]


def _entry(entry: Any) -> Any:
    entry = {"path": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        return entry
    suffixes = [suffix.lstrip(".") for suffix in Path(entry["path"]).suffixes[-2:]]
    builder = next((BUILDERS[suffix] for suffix in suffixes if suffix in BUILDERS), None)
    path = Path(entry["path"]).expanduser()
    if builder and "data_files" not in entry:
        split = entry.get("split", "train").partition("[")[0]  # a single file is whatever split is asked for
        return {**entry, "path": builder, "data_files": {split: str(path)}}
    return {**entry, "path": str(path)} if path.is_dir() else entry


def files(entry: Any) -> list[str]:
    """The paths and names that a dataset entry reads."""
    named = entry.data_files
    named = list(named.values()) if isinstance(named, Mapping) else named
    return [named] if isinstance(named, str) else list(named or [entry.path])


def load(data: trl.DatasetMixtureConfig, path: Sequence[str] = ()) -> Dataset:
    """The rows of a mixture. Raises RecipeError when they cannot be had."""
    for entry in data.datasets:
        for name in files(entry):
            if _looks_local(name) and not _exists(name):
                near = suggest(Path(name).name, [p.name for p in Path(name).expanduser().parent.glob("*")])
                raise RecipeError(f"no such file: {name}{near}", path)
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # reading is quick; tokenising, which may not be, keeps its bars
    try:
        return trl.get_dataset(data)["train"]
    except Exception as error:  # datasets raises a dozen kinds; the user needs the place and the reason
        names = ", ".join(name for entry in data.datasets for name in files(entry))
        splits = ", ".join(entry.split for entry in data.datasets)
        raise RecipeError(f"cannot load {names} (split {splits}): {type(error).__name__}: {error}", path) from error
    finally:
        if not hidden:
            datasets.enable_progress_bars()


def check(
    data: trl.DatasetMixtureConfig | None,
    step: Step,
    key: str,
    forms: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase | None = None,
    train: Any = None,
) -> None:
    """Raises RecipeError unless every dataset of the mixture has one of the `forms` (sets of columns), whole rows and,

    where a tokenizer is given, tokens to learn from. Datasets that a step above has still to make are left for later.
    """
    for entry in data.datasets if data else ():
        if any(step.pending(name) for name in files(entry)):
            continue
        place, source = (*step.path, key), ", ".join(files(entry))
        rows = load(trl.DatasetMixtureConfig(datasets=[entry]), place)
        if len(rows) == 0:
            raise RecipeError(f"{source} has no rows in split {entry.split!r}", place)
        form = _form(rows.column_names, forms, source, place)
        if "input_ids" not in form:
            _check_cells(rows, form, source, place)
        if forms is PREFERENCE:
            _check_pairs(rows, source, place)
        if forms is PROMPTS and tokenizer is not None and not isinstance(rows[0]["prompt"], str):
            _check_template(tokenizer, place)
        elif forms is not PROMPTS and tokenizer is not None:
            _check_tokens(rows, form, tokenizer, train, source, place)


def drop_equal(rows: Dataset) -> tuple[Dataset, int]:
    """Preference rows without those whose two answers are equal, and how many those were."""
    kept = rows.filter(lambda row: row["chosen"] != row["rejected"])
    return kept, len(rows) - len(kept)


def _form(columns: list[str], forms: Sequence[Sequence[str]], source: str, place: Sequence[str]) -> Sequence[str]:
    for form in forms:
        if set(form) <= set(columns):
            return form
    nearest = max(forms, key=lambda form: len(set(form) & set(columns)))
    missing = next(name for name in nearest if name not in columns)
    others = [column for column in columns if column not in nearest]
    wanted = " or ".join(" + ".join(form) for form in forms)
    raise RecipeError(
        f"{source} has no column {missing!r}{suggest(missing, others)} "
        f"(it has: {', '.join(columns)}; needed: {wanted}). Rename it in the file",
        place,
    )


def _check_cells(rows: Dataset, form: Sequence[str], source: str, place: Sequence[str]) -> None:
    for column in dict.fromkeys([*form, *({"prompt"} & set(rows.column_names))]):
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


def _check_tokens(
    rows: Dataset,
    form: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    train: Any,
    source: str,
    place: Sequence[str],
) -> None:
    limit = getattr(train, "max_length", None)
    empty, masked, answers, whole, stops, hidden = [], [], 0, 0, 0, 0
    for index, row in enumerate(rows.select(range(min(AUDITED, len(rows))))):
        for ids, learned in _tokens(row, form, tokenizer, train, place):
            answers += 1
            if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
                raise RecipeError(f"{source}, row {index}: two beginning-of-sequence tokens {tokenizer.bos_token!r}:"
                                  " the text or the chat template adds a second one", place)  # fmt: skip
            if not ids:
                empty.append(index)
            elif not any(learned[:limit]):
                masked.append(index)
            elif limit is None or len(ids) <= limit:
                ends = [mask for token, mask in zip(ids, learned, strict=True) if token == tokenizer.eos_token_id]
                whole += 1
                stops += any(ends)
                hidden += bool(ends) and not any(ends)
    name = getattr(tokenizer, "name_or_path", "") or "the tokenizer"
    if len(empty) > answers / 2:
        raise RecipeError(f"{source}, row {empty[0]}: no tokens at all, as in {len(empty)} of {answers} answers: "
                          f"{name} does not know this text", place)  # fmt: skip
    if len(masked) > answers / 2:
        raise RecipeError(f"{source}, row {masked[0]}: nothing to learn, as in {len(masked)} of {answers} answers: "
                          f"the answer is empty, masked or beyond max_length ({limit})", place)  # fmt: skip
    if whole and not stops:
        eos = tokenizer.eos_token
        if hidden:
            reason = f"the end-of-sequence token {eos!r} is masked out of the loss" + (
                ", and it is also the padding token: give the tokenizer a padding token of its own (train.pad_token) "
                "and build the labels anew"
                if tokenizer.pad_token_id == tokenizer.eos_token_id
                else ": unmask it in the labels"
            )
        else:
            reason = (
                f"no answer ends with the tokenizer's end-of-sequence token {eos!r}: "
                "set train.eos_token to the token that ends a turn in the chat template"
            )
        raise RecipeError(f"{source}: {reason}, or the model never learns to stop", place)


def _check_template(tokenizer: Any, place: Sequence[str]) -> None:
    if not tokenizer.chat_template:
        raise RecipeError(
            "the data is conversational but the tokenizer has no chat template: train it with sft's "
            "train.chat_template_path, or use data of plain text",
            place,
        )


def _tokens(row: dict[str, Any], form: Sequence[str], tokenizer: Any, train: Any, place: Sequence[str]):
    """(token ids, which of them are learned) for each answer in a row, tokenised as trl's trainers do."""
    if "input_ids" in form:
        labels = row.get("labels") or row["input_ids"]
        yield row["input_ids"], [label != -100 for label in labels]
        return
    answers = {"messages": ["messages"], "text": ["text"], "chosen": ["chosen", "rejected"]}
    for column in answers.get(form[0], ["completion"] if "completion" in form else ["completions"]):
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
                start = len(
                    tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
                )
            yield ids, [position >= start for position in range(len(ids))]


def _looks_local(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or bool(re.search(r"\.(jsonl?|csv|parquet|txt)(\.\w+)?$", name))


def _exists(name: str) -> bool:
    path = Path(name).expanduser()
    return path.exists() or ("*" in name and any(Path().glob(name))) or "://" in name
