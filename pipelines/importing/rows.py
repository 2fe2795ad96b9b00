"""Data of other recipes: datasets with splits, configurations, shares and columns as `data` and `eval_data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.pipelines.importing import names
from trimtab.pipelines.importing.draft import Draft

HELD_OUT = ("test", "eval", "valid", "dev")
MIXED = ("dataset_mixer", "dataset_mixture", "datasets", "dataset_name")  # keys that name data, of which one counts


def entry(draft: Draft, source: Any, **options: Any) -> dict[str, Any]:
    """One dataset, with what is to be done where it is not here."""
    path, note = names.settle(source, draft.source.folder)
    if note and note not in draft.notes:
        draft.notes.append(note)
    return {"path": path, **{key: value for key, value in options.items() if value is not None}}


def block(entries: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """A data block of one dataset or of several, with the keys of the whole."""
    of_all = {key: value for key, value in options.items() if value is not None}
    return {**entries[0], **of_all} if len(entries) == 1 else {"datasets": entries, **of_all}


def of_family(draft: Draft) -> None:
    """The data of the Hugging Face family: TRL's, alignment-handbook's and open-r1's keys."""
    wants_eval = str(draft.look("eval_strategy", "evaluation_strategy") or "no") not in ("no", "False")
    wants_eval = wants_eval or draft.look("do_eval") in (True, "yes")
    columns = _columns(draft)
    for key in [key for key in MIXED if draft.left.get(key) is not None][1:]:
        draft.drop(key, "another key names the data too, and counts")
    for key in [key for key in MIXED if key in draft.left and draft.left[key] is None]:
        draft.drop(key, "is null")
    if isinstance(draft.look("dataset_mixer"), Mapping):
        _mixer(draft, wants_eval)
    elif isinstance(draft.look("dataset_mixture"), Mapping):
        _mixture(draft, "dataset_mixture", draft.look("dataset_mixture"))
    elif isinstance(draft.look("datasets"), list):
        _mixture(draft, "datasets", {"datasets": draft.look("datasets")})
    elif draft.look("dataset_name") is not None:
        _named(draft, wants_eval)
    for place in ("data", "eval_data"):
        if columns and place in draft.block and "datasets" not in draft.block[place]:
            draft.block[place]["columns"] = columns
    evaluated(draft)
    prompts(draft, "max_prompt_length")


def prompts(draft: Draft, key: str) -> None:
    """The longest prompt: those beyond are left out where prompts are read, with a count."""
    if draft.takes_prompts() and isinstance(draft.look(key), int) and "data" in draft.block:
        draft.rename(key, "data.max_prompt_tokens", why="longer prompts are left out and counted")


def held_out(draft: Draft, key: str) -> None:
    """The share of the rows that is kept apart, by the key that says it, where no other rows are evaluated on."""
    share = draft.look(key)
    if isinstance(share, float) and 0 < share < 1 and "eval_data" not in draft.block:
        draft.rename(key, "data.eval_fraction", why="by a hash of each prompt")
    elif key in draft.left:
        draft.drop(key, "a share of the prompts is kept apart by `eval_fraction` in `data`")
    evaluated(draft)


def evaluated(draft: Draft) -> None:
    """Leaves out when to evaluate, where there is nothing to evaluate on."""
    if "eval_data" in draft.block or "eval_fraction" in draft.at("data"):
        return
    for key in ("eval_strategy", "evaluation_strategy", "eval_steps"):
        if str(draft.look(key) or "no") not in ("no", "False"):
            draft.drop(key, "no rows to evaluate on: name some in `eval_data`, or `eval_fraction` in `data`")


def _columns(draft: Draft) -> dict[str, str]:
    """Columns by the names that are read, of keys that say which column has what."""
    columns: dict[str, str] = {}
    named = {"dataset_prompt_column": "prompt", "prompt_column": "prompt", "completion_column": "completion"}
    named |= {"text_column": "text"} if draft.kind == "sft" else {}
    named |= {"chosen_column": "chosen", "rejected_column": "rejected"}
    for key, column in named.items():
        there = draft.look(key)
        if there == column:
            draft.drop(key, f"is {column}, which is read by itself")
        elif there is not None:
            columns[column] = there
            draft.settle(key, "data", f"the column that is read as `{column}`")
    return columns


def _named(draft: Draft, wants_eval: bool) -> None:
    split = draft.look("dataset_train_split", "dataset_split") or None
    config = draft.look("dataset_config", "dataset_configs")
    config = config[0] if isinstance(config, list) else config
    options = {"name": None if config == "default" else config}
    draft.block["data"] = entry(draft, draft.left["dataset_name"], split=split, **options)
    draft.rename("dataset_name", "data.path", draft.block["data"]["path"])
    for key in ("dataset_config", "dataset_configs"):
        if key in draft.left:
            draft.rename(key, "data.name", options["name"] or "default")
            if options["name"] is None:
                draft.block["data"].pop("name", None)
    for key in ("dataset_train_split", "dataset_split"):
        if draft.left.get(key):
            draft.rename(key, "data.split")
    held_out = draft.look("dataset_test_split")
    if wants_eval:
        named = held_out or "test"
        draft.block["eval_data"] = {**draft.block["data"], "split": named}
    if held_out:
        if wants_eval:
            draft.rename("dataset_test_split", "eval_data.split")
        else:
            draft.drop("dataset_test_split", "nothing is evaluated: `eval_data: {path: ..., split: ...}` would")


def _mixer(draft: Draft, wants_eval: bool) -> None:
    """`{name: share}` with `dataset_splits`: the first rows of each, as alignment-handbook takes them."""
    shares = draft.look("dataset_mixer")
    splits = draft.look("dataset_splits") or ["train", "test"]
    splits = [splits] if isinstance(splits, str) else list(splits)
    configs = draft.look("dataset_configs") or []
    configs = [configs] if isinstance(configs, str) else list(configs)
    sides: dict[str, list[dict[str, Any]]] = {"data": [], "eval_data": []}
    for index, (name, share) in enumerate(shares.items()):
        config = configs[index] if index < len(configs) and configs[index] != "default" else None
        for split in splits:
            held_out = any(word in split for word in HELD_OUT)
            part = split if held_out or float(share) >= 1 else f"{split}[:{round(100 * float(share))}%]"
            given = None if part == "train" else part
            sides["eval_data" if held_out else "data"].append(entry(draft, name, name=config, split=given))
    whole = all(float(share) >= 1 for share in shares.values())
    draft.change("dataset_mixer", "data", block(sides["data"] or sides["eval_data"]),
                 "one dataset an entry" if whole else "a share takes the first rows of a split")  # fmt: skip
    if sides["eval_data"] and sides["data"] and wants_eval:
        draft.put("eval_data", block(sides["eval_data"]))
    if "dataset_splits" in draft.left:
        draft.settle("dataset_splits", "data", "those of tests are `eval_data`, where anything is evaluated")
    if "dataset_configs" in draft.left:
        draft.settle("dataset_configs", "data", "stands at each dataset as `name`")


def _mixture(draft: Draft, key: str, mixture: Mapping[str, Any]) -> None:
    """A list of datasets with `id`, `config`, `split`, `columns` and `weight`, or with TRL's keys."""
    entries = []
    for item in mixture.get("datasets") or []:
        given = dict(item) if isinstance(item, Mapping) else {"path": item}
        name = given.get("path") or given.get("id") or "it"
        weight = given.get("weight")
        split = given.get("split")
        if weight is not None and 0 < float(weight) < 1:
            split = f"{split or 'train'}[:{round(100 * float(weight), 4):g}%]"
        options = {key: given.get(key) for key in ("data_dir", "data_files", "columns", "fraction")}
        config = given.get("name") or given.get("config")
        entries.append(entry(draft, name, name=config, split=None if split == "train" else split, **options))
    held_out = mixture.get("test_split_size", draft.look("test_split_size"))
    share = held_out if isinstance(held_out, float) and 0 < held_out < 1 else None
    if held_out is not None and share is None:
        draft.notes.append(f"test_split_size {held_out}: a share of the prompts is kept apart by `eval_fraction`")
    why = "one entry a dataset; a weight below 1 takes that share of it"
    draft.change(key, "data", block(entries, eval_fraction=share), why)
    if "test_split_size" in draft.left:
        draft.rename("test_split_size", "data.eval_fraction", share)
