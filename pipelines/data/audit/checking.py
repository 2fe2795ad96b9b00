"""A data block under the audit: what is wrong with its rows becomes an error, fewer rows, or a count."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from trl import DatasetMixtureConfig

from trimtab.pipelines.data import counting, loading
from trimtab.pipelines.data.audit import lengths, overlong, sources
from trimtab.pipelines.data.audit import tokens as tokens_of
from trimtab.pipelines.data.audit.classes import CLASSES, Action
from trimtab.pipelines.data.audit.facts import Facts, kept
from trimtab.pipelines.data.audit.rows import RowAudit, known_roles
from trimtab.pipelines.data.forms import Form, held_out_key
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import tracking

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step

NONE = np.zeros(0, dtype=np.int64)
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Reader:
    """A model that will read prompts: its name, its tokenizer, the tokens of its context, and those of an answer."""

    name: str
    tokenizer: Any
    context: int | None
    room: int = 1


@dataclasses.dataclass(frozen=True)
class Audit:
    """The audit of the data of one step.

    `actions` are the recipe's, over those of the classes. The tokenizer is None where a step above has still to make
    it, and `train` has the trainer's limits. `readers` are the models that the prompts have to fit.
    """

    step: Step
    actions: Mapping[str, Action] = dataclasses.field(default_factory=dict)
    tokenizer: Any = None
    train: Any = None
    readers: Sequence[Reader] = ()

    def check(
        self, block: DatasetMixtureConfig, key: str, form: Form, held_out: DatasetMixtureConfig | None = None
    ) -> None:
        """Raises RecipeError for rows that are refused, and says what is left out and what is suspicious.

        Datasets that a step above has still to make are left for later.
        """
        if block.test_split_size is not None:
            message = "every process would draw rows of its own: name the rows of both, as in `split: train[:95%]`"
            raise RecipeError(message, (*self._place(key), "test_split_size"))
        if getattr(block, "overlong", None) or getattr(block, "max_prompt_tokens", None):
            overlong.require_prompts(form, self._place(key))
        sources.check_splits(block, self.step, self._place(key))
        if key == "data" and held_out is not None and "overlap" not in self.actions:
            sources.check_apart(block, held_out, self._place(held_out_key(key)))
        for part in sources.parts(block):
            if not self.is_pending(part):
                facts = self._facts(part, key, form, held_out)
                self._say(part, key, facts)

    def kept(
        self, block: DatasetMixtureConfig, key: str, form: Form, held_out: DatasetMixtureConfig | None = None
    ) -> tuple[Dataset, dict[str, int]]:
        """The rows of a block without those that are dropped, and metrics of what was found.

        The counts of each dataset go to the step's record.
        """
        loaded = loading.read(block, self._place(key))
        rows = loading.joined(loaded.parts)
        taken, cut, counts = self._outcomes(block, key, form, held_out)
        if len(cut):
            limits = [(reader.tokenizer, limit) for reader, limit in self._limits(block)]
            rows = overlong.truncated(rows, cut, limits)
        if len(taken) < len(rows):
            rows = rows.select(taken)
        by_source = counting.counts(block, loaded, taken, self.step)
        tracking.count_rows(key, by_source)
        several = {f"{key}/from/{name}": count["used"] for name, count in by_source.items() if len(by_source) > 1}
        return rows, {f"{key}/rows": len(rows), **several, **counts}

    def beyond(self, block: DatasetMixtureConfig, key: str, form: Form, reader: Reader) -> np.ndarray:
        """The numbers of the rows that are used as they are and leave no room in the context of another reader."""
        other = dataclasses.replace(self, readers=[reader], actions=dict.fromkeys(CLASSES, "warn"))
        long, start = [NONE], 0
        for part in sources.parts(block):
            facts = other._facts(part, key, form, None)
            long.append(facts.rows.get("beyond_context", NONE) + start)
            start += facts.count
        taken, cut, _ = self._outcomes(block, key, form, None)
        return np.setdiff1d(np.intersect1d(np.concatenate(long), taken), cut)

    def _outcomes(
        self, block: DatasetMixtureConfig, key: str, form: Form, held_out: DatasetMixtureConfig | None
    ) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """The numbers of the rows that are used, of those that are cut, and metrics of what was found."""
        dropped, cut, start = [NONE], [NONE], 0
        counts: dict[str, int] = {}
        for part in sources.parts(block):
            facts = self._facts(part, key, form, held_out)
            for word, of_class in facts.rows.items():
                action = self._for(part)._action(word, facts)
                outcome = "dropped" if action == "drop" else "warned"
                name = f"{key}/{'truncated' if overlong.is_cut(part, word) else outcome}/{word}"
                counts[name] = counts.get(name, 0) + len(of_class)
                dropped += [of_class + start] if action == "drop" else []
                cut += [of_class + start] if overlong.is_cut(part, word) else []
            start += facts.count
        return np.setdiff1d(np.arange(start), np.concatenate(dropped)), np.unique(np.concatenate(cut)), counts

    def _facts(self, part: DatasetMixtureConfig, key: str, form: Form, held_out: DatasetMixtureConfig | None) -> Facts:
        """What is wrong with the rows of a part. Raises RecipeError for what is refused, cheap things first."""
        return self._for(part)._looked_at(part, key, form, held_out)

    def _for(self, part: DatasetMixtureConfig) -> Audit:
        """The audit with what a block's `overlong` says over it."""
        action = overlong.ACTIONS.get(getattr(part, "overlong", None) or "")
        actions = dict.fromkeys(overlong.CLASSES, action) if action else {}
        return dataclasses.replace(self, actions={**self.actions, **actions})

    def _limits(self, block: DatasetMixtureConfig) -> Iterator[tuple[Reader, int]]:
        """The tokens that a prompt may have for each that reads it."""
        longest = getattr(block, "max_prompt_tokens", None)
        if longest is not None:
            yield Reader("", self.tokenizer, None), longest
        for reader in self.readers:
            if reader.context is not None:
                yield reader, reader.context - reader.room

    def _looked_at(
        self, part: DatasetMixtureConfig, key: str, form: Form, held_out: DatasetMixtureConfig | None
    ) -> Facts:
        facts = self._of_rows(part, key, form)
        if held_out is not None and not self.is_pending(held_out) and "hashes" in facts.arrays:
            self._add_overlap(facts, held_out, held_out_key(key), form)
        self._refuse(part, key, facts)
        if self.tokenizer is not None and form.audit & {"tokens", "prompts"}:
            if facts.is_chat and not self.tokenizer.chat_template:
                raise RecipeError(
                    "the data is conversational but the tokenizer has no chat template: train it with sft's "
                    "train.chat_template_path, or use data of plain text",
                    self._place(key),
                )
            overlong.require_column(part, facts.columns, self._place(key))
            self._add_tokens(facts, part, key, form)
            self._refuse(part, key, facts)
        return facts

    def _of_rows(self, part: DatasetMixtureConfig, key: str, form: Form) -> Facts:
        place, roles = self._place(key), known_roles(self.tokenizer)

        def look() -> Facts:
            rows = loading.load(part, place)
            if len(rows) == 0:
                raise RecipeError(f"{sources.source(part)} has no rows in split {part.datasets[0].split!r}", place)
            columns = sources.columns_of(rows, form, sources.source(part), place)
            return RowAudit(form, columns, roles).read(rows)

        facts = kept(["rows", sources.identity(part, place), form.columns, sorted(form.audit), form.name, roles], look)
        return dataclasses.replace(facts, rows=dict(facts.rows), values=dict(facts.values))

    def _add_overlap(self, facts: Facts, held_out: DatasetMixtureConfig, key: str, form: Form) -> None:
        others = [self._of_rows(part, key, form).arrays.get("hashes") for part in sources.parts(held_out)]
        hashes = [array for array in others if array is not None]
        if hashes:
            common = np.flatnonzero(np.isin(facts.arrays["hashes"], np.concatenate(hashes)))
            facts.add("overlap", common, f"also a row of {key}")

    def _add_tokens(self, facts: Facts, part: DatasetMixtureConfig, key: str, form: Form) -> None:
        """Adds what the tokenizer of the step, and those of further readers, say of the rows."""
        broken = set(chain.from_iterable(facts.rows.get(word, []) for word in ("missing", "content")))
        learned = "tokens" in form.audit
        readers = [Reader("", self.tokenizer, None)] if learned else self.readers
        for reader in readers:

            def look(reader: Reader = reader) -> Facts:
                rows = loading.load(part, self._place(key))
                return tokens_of.TokenAudit(reader.tokenizer, facts.columns, learned=learned, broken=broken).read(rows)

            rows_identity = sources.identity(part, self._place(key))
            tokens = kept(
                ["tokens", rows_identity, facts.columns, learned, tokens_of.identity(reader.tokenizer)], look
            )
            for word, of_class in tokens.rows.items():
                facts.add(word, of_class, tokens.values[word])
            if learned:
                train = self.train if form.example else None  # the lengths of sampled answers are those of their ids
                found = lengths.within(tokens, reader.tokenizer, train)
            else:
                found = lengths.beyond(tokens, reader.context, reader.room, reader.name)
            for word, of_class, value in found:
                facts.add(word, of_class, value)
            if reader is readers[0] and getattr(part, "max_prompt_tokens", None) is not None:
                facts.add(*lengths.overlong(tokens, part.max_prompt_tokens))

    def _action(self, word: str, facts: Facts) -> Action:
        if word in self.actions:
            return self.actions[word]
        above = len(facts.rows[word]) > CLASSES[word].limit * facts.count
        return "refuse" if above else CLASSES[word].action

    def _refuse(self, part: DatasetMixtureConfig, key: str, facts: Facts) -> None:
        """Raises RecipeError for the classes that are refused, or where no row would be left."""
        refused = []
        for word in filter(facts.rows.__contains__, CLASSES):
            if self._action(word, facts) == "refuse":
                others = "" if word in self.actions else f" ({_instead(word)})"
                refused.append(f"{_sentence(part, facts, word)}: {CLASSES[word].cure}{others}")
        if refused:
            raise RecipeError("; ".join(refused), self._place(key))
        dropped = [facts.rows[word] for word in facts.rows if self._action(word, facts) == "drop"]
        if dropped and len(np.unique(np.concatenate(dropped))) == facts.count:
            words = ", ".join(word for word in facts.rows if self._action(word, facts) == "drop")
            raise RecipeError(f"{sources.source(part)}: no row is left ({words})", self._place(key))

    def _say(self, part: DatasetMixtureConfig, key: str, facts: Facts) -> None:
        told = "TRIMTAB_LOCK" in os.environ and not self._is_left_above(part)  # by the launcher of this step
        if told or os.environ.get("RANK", "0") != "0":
            return
        for word in filter(facts.rows.__contains__, CLASSES):
            left_out = "left out: " if self._action(word, facts) == "drop" else ""
            place = ".".join(self._place(key))
            logger.warning("%s: %s%s (audit: %s)", place, left_out, _sentence(part, facts, word), word)

    def is_pending(self, block: DatasetMixtureConfig) -> bool:
        """Whether a step above has still to make these rows."""
        names = chain.from_iterable(map(loading.files, block.datasets))
        return any(self.step.pending(name) for name in names)

    def _is_left_above(self, block: DatasetMixtureConfig) -> bool:
        """Whether a step above has left these rows: not all of those could be looked at before it was launched."""
        folders = tuple(str(source.output) for source in self.step.inputs)
        names = chain.from_iterable(map(loading.files, block.datasets))
        return any(name.startswith(folders) for name in names)

    def _place(self, key: str) -> tuple[str, ...]:
        return (*self.step.path, *key.split("."))


def _sentence(part: DatasetMixtureConfig, facts: Facts, word: str) -> str:
    rows = facts.rows[word]
    count = f", as in {len(rows)} of {facts.count} rows" if facts.count > 1 else ""
    return f"{sources.source(part)}, row {rows[0]}: {facts.values[word]}{count}"


def _instead(word: str) -> str:
    ways = ("drop",) if CLASSES[word].action == "refuse" else ("drop", "warn")
    return "or " + " or ".join(f"`audit: {{{word}: {way}}}`" for way in ways)
