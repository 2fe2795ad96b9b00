"""A policy that is asked prompts behind a text, and what rewards say of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.data.prefacing import prefaced
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import cut
from trimtab.pipelines.scoring import asking
from trimtab.pipelines.scoring.rewriting import Told
from trimtab.rewards import RewardFailure, text
from trimtab.rewards._rendering import Unrenderable, prompt_ids

if TYPE_CHECKING:
    import trl
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.sampling.settings import Sampling
    from trimtab.pipelines.scoring.combining import Combination


class PrefacedPolicy:
    """A trial of texts on `rows` with prompts; rewards see the prompt without the text.

    A row's score is the mean over its answers, and what is shown of them is the worst. Its feedback has every reward's
    score, what rewards log in words, and the row's columns `hints`.
    """

    def __init__(
        self,
        step: Step,
        rows: Dataset,
        model: trl.ModelConfig,
        sampling: Sampling,
        rewards: Mapping[str, Any],
        combination: Combination,
        hints: Sequence[str],
    ):
        self.step, self.rows, self.model, self.sampling = step, rows, model, sampling
        self.combination, self.hints = combination, hints
        self.size = max(1, sampling.sample_batch_size // sampling.num_generations)
        self.rewards = {
            name: schema.load_reward(cut(rewards[name]).reward, (*step.path, "rewards", name))
            for name in combination.weights
        }

    def asked(self, row: int) -> str:
        """What a row asks."""
        return text(self.rows[row]["prompt"])

    def __call__(self, preface: str, rows: Sequence[int]) -> list[Told]:
        """What comes of the text on each row. Raises RecipeError where rewards abstain, and RewardFailure."""
        from datasets import Dataset

        drawn = self._drawn(preface, rows)
        scored = Dataset.from_list(
            [{**self.rows[one["prompt_index"]], "completion": one["completion"]} for one in drawn]
        )
        numbers = range(len(drawn))
        scores: list[dict[str, Any]] = [{} for _ in numbers]
        notes: list[list[str]] = [[] for _ in numbers]
        for name, reward in self.rewards.items():
            outcomes, extra, _ = asking.ask(reward, name, scored, numbers)
            for number, outcome in enumerate(outcomes):
                if isinstance(outcome, RewardFailure):
                    raise outcome
                scores[number][name] = outcome
                words = {column: values[number] for column, values in extra.items()}
                notes[number] += [
                    f"{name}, {column}: {word}" for column, word in words.items() if isinstance(word, str)
                ]
        by_row: dict[int, list[tuple[float, int]]] = {row: [] for row in rows}
        for number, one in enumerate(drawn):
            total = self.combination(scores[number])
            if total is None:
                message = f"the rewards abstain from an answer to {self.asked(one['prompt_index'])[:80]!r}"
                raise RecipeError(message, (*self.step.path, "rewards"))
            by_row[one["prompt_index"]].append((total, number))
        told = []
        for row, answers in by_row.items():
            worst, number = min(answers)
            single = " ".join(f"{name}: {score:.3g}." for name, score in scores[number].items() if score is not None)
            hints = [f"{name}: {text(self.rows[row][name])}" for name in self.hints]
            feedback = "\n".join(
                [f"Score: {worst:.3g}." + (f" {single}" if len(self.rewards) > 1 else ""), *notes[number], *hints]
            )
            mean = sum(total for total, _ in answers) / len(answers)
            told.append(Told(mean, text(drawn[number]["completion"]), feedback))
        return told

    def _drawn(self, preface: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The answers to the rows' prompts behind a text."""
        import numpy as np
        from datasets import Dataset

        from trimtab.pipelines.sampling import prompts as prompting
        from trimtab.pipelines.sampling.completing import Completing

        prompts = [prefaced(prompt, preface) for prompt in self.rows["prompt"]]
        try:
            ids = [prompt_ids(self._tokenizer, prompt, row) for prompt, row in zip(prompts, self.rows, strict=True)]
        except Unrenderable as error:
            raise RecipeError(str(error), (*self.step.path, "prompts")) from error
        count = self.sampling.num_generations
        table = Dataset.from_dict({"ids": ids})
        completing = Completing(
            model=self.model,
            config=self._config,
            tokenizer=self._tokenizer,
            prompts=table,
            order=np.array(rows),
            longest=int(prompting.lengths(table).max()),
            num_generations=count,
            size=len(rows) * count,
            batch_size=self.sampling.sample_batch_size,
            seed=self.step.seed,
            is_text=isinstance(prompts[0], str),
            path=self.step.path,
            drawn=self._served(ids, rows),
            is_served=self.sampling.server is not None,
            policy=None if self.sampling.server else self._policy,
        )
        return completing(0)

    def _served(self, ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Dataset | None:
        """What servers answer, where the recipe names some."""
        from datasets import Dataset

        from trimtab.pipelines.sampling import server_engine
        from trimtab.rewards._http import PostFailure

        if self.sampling.server is None:
            return None
        count = self.sampling.num_generations
        asked = [(ids[row], self.step.seed * 1_000_003 + row * count + turn) for row in rows for turn in range(count)]
        with server_engine.reached(self.model, self._config, self.sampling.server, self._tokenizer) as fleet:
            try:
                return Dataset.from_list(fleet.answers(*map(list, zip(*asked, strict=True))))
            except PostFailure as failure:
                raise RecipeError(
                    f"{failure.reason}\nwhat was tried is kept: the same command goes on", (*self.step.path, "server")
                ) from failure

    @cached_property
    def _tokenizer(self) -> Any:
        from trimtab.pipelines.sampling import transformers_engine

        return transformers_engine.load_tokenizer(self.model)

    @cached_property
    def _config(self) -> Any:
        from trimtab.pipelines.sampling import transformers_engine

        return transformers_engine.settings(self.model, self._tokenizer, self.sampling.generate)

    @cached_property
    def _policy(self) -> Any:
        from trimtab.pipelines.sampling import transformers_engine

        return transformers_engine.load(self.model)
