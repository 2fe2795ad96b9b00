"""The forms of data: which columns a stage reads, declared once, in the type of its field.

    data: Annotated[Data, PREFERENCE]

A field's form is what its rows are checked by before anything runs, what the documentation says of the key, and
what a shrunk run makes rows of. `data:` in a recipe is `trl.DatasetMixtureConfig`, whose entries also take a `layout`;
three short forms are read as one: a path or hub name, one entry, or a list.

    data: trl-lib/ultrafeedback_binarized
    data: pairs.jsonl.gz                                    # json, jsonl, csv, parquet or txt, also compressed
    data: {path: $world/gold, split: test}
    data: {path: conversations.jsonl, layout: sharegpt}     # a word of pipelines/data/layouts
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import trl
from trl.scripts.utils import DatasetConfig

from trimtab.pipelines.data import layouts
from trimtab.pipelines.planning import kinds

BUILDERS = {"json": "json", "jsonl": "json", "csv": "csv", "parquet": "parquet", "txt": "text"}


def mixture(value: Any, path: Sequence[str] = ()) -> Any:
    """The short forms of `data:` as the mapping that `trl.DatasetMixtureConfig` takes."""
    if isinstance(value, Mapping) and "datasets" in value:
        return {**value, "datasets": [_entry(entry) for entry in value["datasets"]]}
    if isinstance(value, Mapping) and not {"path", "data_files"} & set(value):
        return value  # unknown keys: the check names them
    return {"datasets": [_entry(entry) for entry in (value if isinstance(value, list) else [value])]}


@dataclass
class DataEntry(DatasetConfig):
    """One dataset: trl's keys, and the layout that its rows have where that is none of a stage's own.

    `unpacked_gb` is what a compressed file may become, in GB; by default 200 times its size, and 0.27 at least.
    """

    layout: Annotated[dict[str, Any] | None, layouts.block] = None
    unpacked_gb: float | None = None


@dataclass
class DataMixture(trl.DatasetMixtureConfig):
    """Datasets whose rows are read one after the other."""

    datasets: list[DataEntry] = field(default_factory=list)


Data = Annotated[DataMixture, mixture]


@dataclass(frozen=True)
class Form:
    """Rows of a kind. `columns` are the sets of columns of which a dataset needs one, the first one that it has.

    `audit` names what else is looked at before a run: "prompts" (a template, and room for them), "tokens" (something
    to learn and an end to stop at) and "thumbs" (labels that are true or false). `example(question, number)` is a row
    of it, for shrunk runs and tests; rows without one are not written by hand, but left by a stage (see `makers`).
    """

    name: str
    columns: tuple[tuple[str, ...], ...]
    example: Callable[[str, int], dict[str, Any]] | None = None
    audit: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return " or ".join(" + ".join(f"`{column}`" for column in columns) for columns in self.columns)

    def where(self, *columns: str) -> Form:
        """The same form with further columns in each of its sets."""
        return replace(self, columns=tuple((*given, *columns) for given in self.columns))


def said(role: str, content: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": role, "content": content}]


def _prompt_row(question: str, number: int) -> dict[str, Any]:
    return {"prompt": said("user", question), "answer": "4", "ground_truth": "4", "label": "4"}


def _messages_row(question: str, number: int) -> dict[str, Any]:
    return {"messages": said("user", question) + said("assistant", f"It is {number}.")}


def _pair_row(question: str, number: int) -> dict[str, Any]:
    answers = {"chosen": said("assistant", f"It is {number}."), "rejected": said("assistant", "No.")}
    return {"prompt": said("user", question), **answers}


def _ranking_row(question: str, number: int) -> dict[str, Any]:
    answers = [said("assistant", f"It is {number}."), said("assistant", "Perhaps."), said("assistant", "No.")]
    return {"prompt": said("user", question), "completions": answers}


def _unpaired_row(question: str, number: int) -> dict[str, Any]:
    good = number % 2 == 0
    answer = said("assistant", f"It is {number}." if good else "No.")
    return {"prompt": said("user", question), "completion": answer, "label": good}


def _labelled_row(question: str, number: int) -> dict[str, Any]:
    return {"text": f"{question}\nIt is {number}.\n", "label": number % 2}


def _text_row(question: str, number: int) -> dict[str, Any]:
    return {"text": f"{question} It is {number}."}


def _dialogue_row(question: str, number: int) -> dict[str, Any]:
    return {"dialog": [question, f"It is {number}.", "Thanks."] * 3, "act": [2, 1, 1 + number % 4] * 3}


def _choice_row(question: str, number: int) -> dict[str, Any]:
    return {"prompt_index": number, "choice": 0}


LEARNED = frozenset({"tokens"})
SFT = Form(
    "text to learn", (("messages",), ("prompt", "completion"), ("text",), ("input_ids",)), _messages_row, LEARNED
)
PREFERENCE = Form("preference", (("chosen", "rejected"),), _pair_row, LEARNED)
RANKING = Form("ranking", (("prompt", "completions"),), _ranking_row, LEARNED)
UNPAIRED = Form(
    "unpaired preference",
    (("prompt", "completion", "label"), ("chosen", "rejected")),
    _unpaired_row,
    LEARNED | {"thumbs"},
)
LABELLED = Form("labelled text", (("text", "label"),), _labelled_row, LEARNED)
PROMPTS = Form("prompts", (("prompt",),), _prompt_row, frozenset({"prompts"}))
CONVERSATIONS = Form("answered prompts", (("messages",), ("prompt", "completion")), _messages_row)
ANSWERS = Form("prompts with answers, or text", (("messages",), ("prompt", "completion"), ("text",)), _messages_row)
RATED = Form("answers to rate", (("chosen", "rejected"), ("prompt", "completions"), ("completion",)), _pair_row)
CORPUS = Form("any text", (("text",), ("messages",), ("prompt",), ("completion",), ("chosen",)), _text_row)
TEXT = Form("plain text", (("text",),), _text_row)
DIALOGUES = Form("dialogues", (("dialog", "act"),), _dialogue_row)
COMPLETIONS = Form("completions", (("prompt", "completion"),))
TOKENS = ("prompt_ids", "completion_ids", "logprobs")
SAMPLED = COMPLETIONS.where("prompt_index", "sample_index")
SCORED = Form("scored completions", (("prompt", "completion", "prompt_index", "scores"),))
LISTS = Form("lists of answers", (("prompt", "completions", "prompt_ids", "completion_ids"),), None, LEARNED)
CHOICES = Form("choices", (("prompt_index",),), _choice_row)


def makers(form: Form) -> list[str]:
    """The kinds of stages that leave such rows, as their classes say in `writes`; none for rows written by hand."""
    if form.example is not None:
        return []
    written = {word: set(kinds.find(kinds.STAGES, word).writes) for word in kinds.words(kinds.STAGES)}
    return [word for word, columns in written.items() if any(columns.issuperset(needed) for needed in form.columns)]


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
