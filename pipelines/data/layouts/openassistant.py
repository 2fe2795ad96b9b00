"""Layout `openassistant`: OpenAssistant's trees of messages, as flat messages or one tree a row.

    sft: {data: {path: OpenAssistant/oasst2, layout: {kind: openassistant, languages: [en]}}, ...}
    dpo: {data: {path: oasst.trees.jsonl.gz, layout: {kind: openassistant, answers: best_worst}}, ...}

Deleted messages are left out, and what hangs on them. The score of an answer is its rank with the sign changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trimtab.pipelines.data.layouts import MESSAGES, Dropped, Row, message
from trimtab.pipelines.data.ranked import RankedAnswers

if TYPE_CHECKING:
    from datasets import Features

ROLES = {"prompter": "user", "assistant": "assistant"}
FLAT = ("message_id", "parent_id", "text", "role", "message_tree_id")


@dataclass(kw_only=True)
class Openassistant(RankedAnswers):
    """With `conversations`, a tree becomes its best conversation: the best answer at every turn, to the last one.

    With one of the others, every prompt of a tree with several ranked answers becomes pairs or a ranking. `languages`
    are the codes of those that are kept, all by default.
    """

    answers: Literal["conversations", "best_worst", "best_rest", "all_pairs", "ranking"] = "conversations"  # type: ignore[assignment]
    languages: list[str] | None = None

    title: ClassVar[str] = "OpenAssistant's"
    group: ClassVar[str | None] = "message_tree_id"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (FLAT, ("message_tree_id", "prompt"))
    drops: ClassVar[Mapping[str, str]] = {
        "language": "the tree is in none of `languages`",
        "unanswered": "no prompt of the tree has an answer, or none has two that are ranked and differ",
    }

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        return set(FLAT) <= set(features) or (isinstance(first.get("prompt"), dict) and "replies" in first["prompt"])

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(names)  # what else a message has makes no sense for a conversation

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        return {"messages": MESSAGES} if self.answers == "conversations" else super().gives(names)

    def convert(self, row: Row) -> Iterator[Row]:
        root = row["prompt"][0] if "prompt" in row else _tree(row)
        if root is None or root.get("deleted"):
            raise Dropped("unanswered")
        if self.languages is not None and root.get("lang") not in self.languages:
            raise Dropped("language")
        rows = list(self._best(root) if self.answers == "conversations" else self._compared(root, []))
        if not rows:
            raise Dropped("unanswered")
        yield from rows

    def _best(self, root: Row) -> Iterator[Row]:
        """One row of the best conversation, without what is said behind its last answer; none without an answer."""
        messages, node, answered = [_message(root)], root, 0
        while replies := _replies(node):
            node = min(replies, key=_rank)
            messages.append(_message(node))
            answered = len(messages) if node["role"] == "assistant" else answered
        if answered:
            yield {"messages": messages[:answered]}

    def _compared(self, node: Row, before: list[Row]) -> Iterator[Row]:
        """The rows of every prompt from `node` on, which stands behind the messages `before`."""
        conversation, replies = [*before, _message(node)], _replies(node)
        if node["role"] == "prompter":
            ranked = [reply for reply in replies if reply.get("rank") is not None]
            with contextlib.suppress(Dropped):  # this prompt alone: the tree may have others
                yield from self.chosen(conversation, [(-float(reply["rank"]), reply["text"]) for reply in ranked])
        for reply in replies:
            yield from self._compared(reply, conversation)


def _tree(group: Row) -> Row | None:
    """The root of a tree of flat messages, with `replies` in every node."""
    names = [name for name in (*FLAT, "lang", "rank", "deleted") if name in group]
    columns = zip(*(group[name] for name in names), strict=True)
    nodes = [dict(zip(names, values, strict=True), replies=[]) for values in columns]
    by_id: dict[Any, Row] = {node["message_id"]: node for node in nodes}
    for node in nodes:
        if node["parent_id"] in by_id:
            by_id[node["parent_id"]]["replies"].append(node)
    return next((node for node in nodes if node["parent_id"] is None), None)


def _replies(node: Row) -> list[Row]:
    return [reply for reply in node.get("replies") or () if not reply.get("deleted")]


def _rank(node: Row) -> float:
    """Its rank, 0 for the best; messages without one come last."""
    return float("inf") if node.get("rank") is None else node["rank"]


def _message(node: Row) -> dict[str, str]:
    return message(ROLES[node["role"]], node["text"])
