"""Kind `tune_reward`: a better text in a reward, such as a judge's rubric, written from the pairs that it gets wrong.

    tune_reward:
      reward: {kind: judge, rubric: "Is it good?", model: Qwen/Qwen3-8B, url: "http://host:8000/..."}
      key: rubric                                               # the text in the reward's block that is rewritten
      pairs: {path: labels.jsonl, split: "train[:60]"}
      eval_pairs: {path: labels.jsonl, split: "train[60:200]"}
      reflector: {model: Qwen/Qwen3-32B, url: "http://host:8001/v1/chat/completions"}
      budget: 400
    tune_reward: {..., method: random}                          # the control: rewrites that have seen no pair

    score: {completions: $sample, rewards: {judge: {kind: judge, ..., rubric: $tune_reward}}}

The search is that of `tune_text`, and leaves the same files; the budget counts pairs, both answers of each. A pair is
right where the chosen answer has the higher score, and half right where both have the same. A judge of two takes
`against: other`. A rewrite by which no score is said is wrong, and the reflector is told why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import counting, loading
from trimtab.pipelines.data.forms import PREFERENCE, Data
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.reward_blocks import RewardBlock, cut
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring.reflector import Reflector
from trimtab.pipelines.scoring.text_search import TextSearch
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


@dataclass(kw_only=True)
class TuneReward(TextSearch, Stage):
    """`batch_size` is pairs per call of the reward: what a killed run may have to score again."""

    reward: RewardBlock
    key: str
    pairs: Annotated[Data, PREFERENCE]
    select_pairs: Annotated[Data | None, PREFERENCE] = None
    eval_pairs: Annotated[Data | None, PREFERENCE] = None
    batch_size: int = 16

    neutral: ClassVar[tuple[str, ...]] = ("batch_size",)
    shows: ClassVar[Shows] = Shows(
        {"Pairs told right, the best text": ("selection/best",), "Texts": ("rewrites", "kept")},
        results=("gain/mean", "held_out/best", "rewrites"),
        compares=("gain/mean", "held_out/best"),
    )

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        word = {"reward": {"kind": "pattern", "regex": "a"}, "key": "regex"}  # a text, and no server
        return {**super().small(block, miniature), **cls.small_search(block, miniature), **word}

    @classmethod
    def neutral_inside(cls, key: str, block: Mapping[str, Any]) -> Collection[str]:
        return Reflector.neutral if key == "reflector" else super().neutral_inside(key, block)

    def check(self, step: Step) -> None:
        if self.batch_size < 1:
            raise RecipeError(f"must be at least 1, got {self.batch_size}", (*step.path, "batch_size"))
        if not isinstance(self._value, str):
            known = [key for key, value in vars(self._made).items() if not key.startswith("_")]
            message = (
                f"the reward has no text {self.key!r}{suggest(self.key, known)}: write in its block where it begins"
            )
            raise RecipeError(message, (*step.path, "key"))
        self.check_search(step)
        super().check(step)
        choosing = self.select_pairs or self.pairs
        if not any(map(step.pending, chain.from_iterable(map(loading.files, choosing.datasets)))):
            self.check_budget(step, len(loading.load(choosing, step.path)))

    def work(self, known: Known) -> Work:
        return Work("rows", handled=2 * self.budget)

    def folders(self) -> Collection[str]:
        return ()

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return Promise(columns=())  # a text, and no rows

    @property
    def _made(self) -> Any:
        return schema.load_reward(cut(self.reward).reward, "reward")

    @property
    def _value(self) -> Any:
        return getattr(self._made, self.key, None)

    @property
    def written(self) -> str:
        return self._value

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.scoring.worded_reward import WordedReward

        def trial(rows: Dataset) -> WordedReward:
            return WordedReward(step, rows, self.reward, self.key, self.start(step), self.batch_size)

        def there(key: str) -> Dataset | None:
            block = getattr(self, key)
            return None if block is None else counting.rows(block, step, key)

        return self.search(step, trial, *map(there, ("pairs", "select_pairs", "eval_pairs")))
