"""What goes over the wire to a reward server and what comes back, per protocol. Pure functions: nothing is sent here.

openrlhf       {"query": [text, ...], "prompts": [...], "labels": [...]} -> {"rewards": [...], and maybe more}
llamafactory   {"model": ..., "messages": [text, ...]} -> {"scores": [...]}
vllm_classify  {"model": ..., "input": [text, ...], ...} -> {"data": [{"index": 0, "probs": [...]}, ...]}
vllm_pooling   the same with "task": "classify" -> {"data": [{"index": 0, "data": [...]}, ...]}
vllm_score     {"model": ..., "text_1": [...], "text_2": [...], ...} -> {"data": [{"index": 0, "score": ...}, ...]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.rewards import text
from trimtab.rewards._rendering import template_arguments, texts, with_special_tokens

Protocol = Literal["openrlhf", "llamafactory", "vllm_classify", "vllm_pooling", "vllm_score"]
RENDERS_CHATS = ("vllm_classify", "vllm_pooling")  # the server has the template, and takes one conversation at a time
COLUMN = {"vllm_classify": "probs", "vllm_pooling": "data"}


@dataclass(frozen=True)
class Row:
    """One completion, ready to be sent: `whole` is prompt and completion with their special tokens.

    `messages` is set where the server is to render the conversation, with `template`'s arguments of its chat template;
    such a row is sent alone.
    """

    whole: str
    prompt: str
    completion: str
    label: Any = ""
    messages: list[dict[str, Any]] | None = None
    template: dict[str, Any] = field(default_factory=dict)


def render(
    protocol: Protocol,
    prompt: Any,
    completion: Any,
    tokenizer: Any = None,
    label: Any = "",
    row: Mapping[str, Any] | None = None,
) -> Row:
    """A prompt and its completion as text, with the special tokens that the reward model was trained with.

    A conversation is rendered by the tokenizer's chat template, which sees the row's `tools` and
    `chat_template_kwargs`. Text gets the special tokens that the tokenizer adds by itself, and its EOS, where they are
    missing; without a tokenizer it is sent as it is. Raises ValueError for a conversation that nobody can render.
    """
    said = text(completion)
    if protocol == "vllm_score":  # the server itself joins the two, with its special tokens
        return Row(text(prompt) + said, text(prompt), said, label)
    if tokenizer is not None:
        rendered = with_special_tokens(tokenizer, texts(tokenizer, prompt, completion, row or {}))
        return Row(rendered.whole, rendered.prompt or "", said, label)
    if isinstance(prompt, str):
        return Row(prompt + said, prompt, said, label)
    if protocol in RENDERS_CHATS:
        answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        return Row(text(prompt) + said, text(prompt), said, label, [*prompt, *answer], template_arguments(row or {}))
    raise ValueError(
        f"remote: {protocol} takes text, and these prompts are conversations: name the reward model's tokenizer, "
        "whose chat template renders them (such as `tokenizer: $helpful`)"
    )


def request(protocol: Protocol, model: str | None, rows: Sequence[Row]) -> dict[str, Any]:
    """The body that asks for the scores of `rows`."""
    whole = [row.whole for row in rows]
    if protocol == "openrlhf":
        return {"query": whole, "prompts": [row.prompt for row in rows], "labels": [row.label for row in rows]}
    if protocol == "llamafactory":
        return {"model": model or "model", "messages": whole}
    raw = {"model": model, "use_activation": False}  # or the score comes squashed by a sigmoid
    if protocol == "vllm_score":
        return {**raw, "text_1": [row.prompt for row in rows], "text_2": [row.completion for row in rows]}
    content: dict[str, Any] = {"input": whole}
    if rows[0].messages is not None:
        content = {"messages": rows[0].messages}
        settings = {key: value for key, value in rows[0].template.items() if value is not None}
        content |= {"chat_template_kwargs": settings} if settings else {}
    task = {"task": "classify"} if protocol == "vllm_pooling" else {}
    return {**raw, **content, **task, "add_special_tokens": False}  # they are in the text, and BOS must not come twice


def reply(protocol: Protocol, answer: Any, count: int) -> tuple[list[Any], dict[str, list[Any]]]:
    """The `count` scores in an answer, unchecked, and what else it says of each completion (OpenRLHF's extra logs).

    Raises ValueError when they are not there.
    """
    if protocol == "openrlhf":
        return _list(answer, "rewards", count), _logs(answer, count)
    if protocol == "llamafactory":
        return _list(answer, "scores", count), {}
    data = _list(answer, "data", count)
    places = [_value(item, "index") for item in data]
    if any(places.count(i) != 1 for i in range(count)):
        raise ValueError(f"the indices are not those of {count} completions")
    data = [data[places.index(i)] for i in range(count)]
    if protocol == "vllm_score":
        return [_value(item, "score") for item in data], {}
    return [_single(_value(item, COLUMN[protocol])) for item in data], {}


def _single(values: Any) -> Any:
    if isinstance(values, list) and len(values) != 1:
        raise ValueError(f"{len(values)} classes per completion, but a reward model has one output (num_classes: 1)")
    return values[0] if isinstance(values, list) else values


def _list(answer: Any, key: str, count: int) -> list[Any]:
    values = _value(answer, key)
    if not isinstance(values, list):
        raise ValueError(f"{key!r} is no list")
    if len(values) != count:
        raise ValueError(f"{len(values)} items in {key!r} for {count} completions")
    return values


def _value(answer: Any, key: str) -> Any:
    if not isinstance(answer, dict) or key not in answer:
        raise ValueError(f"no {key!r} in it")
    return answer[key]


def _logs(answer: dict[str, Any], count: int) -> dict[str, list[Any]]:
    """Per completion: a number is said of each, and a list of another length of none."""
    extra = answer.get("extra_logs")
    logs: dict[str, Any] = extra if isinstance(extra, dict) else {}
    if answer.get("scores") is not None:
        logs = {**logs, "scores": answer["scores"]}
    spread = {name: values if isinstance(values, list) else [values] * count for name, values in logs.items()}
    return {name: values for name, values in spread.items() if len(values) == count}
