"""Kind `world`: writes the tiny world's SFT answers, prompts and one preference set per rater as Parquet.

    world: {kind: world, labels: {gold: {kind: gold}, politeness: {kind: gold, aspect: politeness}}}

Later stages read `$world/sft`, `$world/prompts` and `$world/politeness`. The SFT answers are of mixed quality on
purpose: preference optimisation needs room above them.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from trimtab.pipelines.data import tiny_world
from trimtab.pipelines.data.forms import said
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.work import Rows, Work
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.reward_blocks import RewardBlock, cut
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


LOOKED_AT = 200  # made-up rows, to see how long they are
WORD = re.compile(r"\w+|[^\w\s]")
Pair = tuple[tiny_world.Prompt, str, str]


@dataclass(kw_only=True)
class World(Stage):
    """`sft`, `prompts` and `pairs` are rows to train on, `test` is the rows of every test file.

    `labels` names the raters, each a reward block; all rate the same pairs. `temperature` is that of their noisy
    Bradley-Terry choice, in standard deviations of a rater's scores, so that raters of any scale are equally noisy.
    """

    sft: int = 3000
    prompts: int = 1000
    pairs: int = 3000
    test: int = 300
    temperature: float = 0.25
    labels: dict[str, RewardBlock] = field(
        default_factory=lambda: {
            "gold": {"kind": "gold"},
            "coverage": {"kind": "gold", "aspect": "coverage"},
            "politeness": {"kind": "gold", "aspect": "politeness"},
        }
    )

    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    shows: ClassVar[Shows] = Shows(results=("rows/sft/train", "rows/prompts/train"))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), "sft": 64, "prompts": 12, "pairs": 64, "test": 10}

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}; a small one gives clean labels")
        if taken := {"sft", "prompts"} & set(self.labels):
            raise ValueError(f"labels: {', '.join(taken)} already names a set of this stage; choose another name")

    def work(self, known: Known) -> Work:
        return Work(handled=self.sft + self.prompts + self.pairs + 3 * self.test)

    def folders(self) -> Collection[str]:
        return ("sft", "prompts", *self.labels)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        sets = {"sft": (self.sft, ("prompt", "completion")), "prompts": (self.prompts, ("prompt",))}
        count, columns = sets.get(folder, (self.pairs, ("prompt", "chosen", "rejected")))
        return Promise(self.test if split.startswith("test") else count, columns=columns, is_chat=True)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        counts = {"sft": self.sft, "prompts": self.prompts}
        count = self.test if split.startswith("test") else counts.get(folder, self.pairs)
        import numpy as np

        rng = Random(0)
        drawn, _ = tiny_world.prompts(rng, LOOKED_AT, 1)
        texts = {"prompts": 0, "sft": 1}.get(folder, 2)
        tokens = []
        for prompt in drawn:
            answers = [_tokens(tiny_world.answer(prompt, rng)) for _ in range(texts)] or [0]
            tokens.append([float(_tokens(str(prompt)) + answer) for answer in answers])
        assumed = f"{known.step.name}: a token for each word and mark"
        asked = np.array([float(_tokens(str(prompt))) for prompt in drawn])
        return Rows(count, np.array(tokens), count, assumed=(assumed,), asked=asked if texts else None)

    def run(self, step: Step) -> Metrics:
        """Writes the sets; metrics are the rows of every file and what is known of the raters.

        `noise` is the share of pairs that are labelled against the rater's own score, in [0, 1], and `correlation`
        that of two raters' scores over the training answers (Pearson).
        """
        from accelerate import PartialState

        from trimtab.pipelines.data.writing import write_table

        if not PartialState().is_main_process:
            return {}
        rng = Random(step.seed)
        metrics: Metrics = {}
        raters = {name: schema.load_reward(cut(block).reward, ("labels", name)) for name, block in self.labels.items()}
        # one draw for all sets, so that no set of items is trained on in one and tested on in another
        asked, tested = tiny_world.prompts(rng, max(self.sft, self.prompts, self.pairs), self.test)
        for split, drawn in (("train", asked), ("test", tested)):
            counts = (self.sft, self.prompts, self.pairs) if split == "train" else (self.test,) * 3
            sets, pairs = _sets(drawn, counts, rng)
            scores = {name: _scores(name, rater, pairs) for name, rater in raters.items()}
            for name in raters:
                sets[name], metrics[f"noise/{name}/{split}"] = _label(pairs, scores[name], self.temperature, rng)
            for name, table in sets.items():
                metrics[f"rows/{name}/{split}"] = len(table)
                write_table(table, step.output / name / f"{split}.parquet")
            if split == "train":
                for one, other in combinations(raters, 2):
                    metrics[f"correlation/{one}/{other}"] = statistics.correlation(scores[one], scores[other])
        return metrics


def _tokens(said: str) -> int:
    """The tokens of a message to a tokenizer of words and marks, with those around it."""
    return 2 + len(WORD.findall(said))


def _sets(
    drawn: list[tiny_world.Prompt], counts: tuple[int, ...], rng: Random
) -> tuple[dict[str, list[dict[str, Any]]], list[Pair]]:
    """The sets `sft` and `prompts` and the pairs to label, so many rows of each."""
    answered = [(prompt, tiny_world.answer(prompt, rng)) for prompt in rng.sample(drawn, counts[0])]
    sft = [{"prompt": said("user", str(p)), "completion": said("assistant", answer)} for p, answer in answered]
    prompts = [{"prompt": said("user", str(prompt))} for prompt in rng.sample(drawn, counts[1])]
    pairs = [(p, tiny_world.answer(p, rng), tiny_world.answer(p, rng)) for p in rng.sample(drawn, counts[2])]
    return {"sft": sft, "prompts": prompts}, pairs


def _scores(name: str, rater: Any, pairs: list[Pair]) -> list[float]:
    """The scores of all first answers, then of all second ones, in units of their standard deviation."""
    prompts = [str(prompt) for prompt, _, _ in pairs] * 2
    scores = rater(prompts=prompts, completions=[a for _, a, _ in pairs] + [b for _, _, b in pairs])
    if None in scores or not (spread := statistics.pstdev(scores)):
        raise ValueError(f"labels.{name}: a rater must score every answer and must not score all alike")
    return [score / spread for score in scores]


def _label(pairs: list[Pair], scores: list[float], temperature: float, rng: Random) -> tuple[list[dict], float]:
    """Preference rows and the share of labels that contradict the scores. A tie carries no preference: left out."""
    rows, contradictions = [], 0
    for (prompt, a, b), score_a, score_b in zip(pairs, scores, scores[len(pairs) :], strict=False):
        if score_a == score_b:
            continue
        first_wins = tiny_world.prefers(score_a, score_b, temperature, rng)
        contradictions += first_wins != (score_a > score_b)
        chosen, rejected = (a, b) if first_wins else (b, a)
        turns = {"chosen": said("assistant", chosen), "rejected": said("assistant", rejected)}
        rows.append({"prompt": said("user", str(prompt))} | turns)
    return rows, contradictions / max(1, len(rows))
