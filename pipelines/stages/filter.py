"""Kind `filter`: the rows of a dataset that are worth training on, and a table of what was left out.

    hard:  {kind: filter, data: $verify, reward: right, passing: [2, 5], prompts: true}   # right in 2 to 5 samples
    best:  {kind: filter, data: $score, reward: {helpful: 1.0, brief: 0.2}, share: 0.25}  # the best quarter of rows
    clean: {kind: filter, data: mine.jsonl, deduplicate: 0.9, decontaminate: test.jsonl}

Conditions on a row's own columns, such as `len(completion) < 4000 and lang == "en"`, need no stage: they are `filter`
in any data block (docs/data.md). What is left out, in this order:

- `contaminated`: rows whose prompt (or text, without system messages) equals one of `decontaminate` or has 13 words in
  a row in common with it
- `unscored`: rows without a score by `reward`, one of the scores or weights of several
- `too_hard` and `too_easy`: the prompts of which fewer or more samples than `passing` says have a score of at least
  `right`. Of 8 samples of a prompt that is solved with probability q, 2 to 5 are right most often at q = 0.43
- `below`: rows with a score below `least`
- `beyond_share`: rows that are not among the best `share` of those that were left by then
- `repeated`: with `prompts`, all but the first row of a prompt
- `duplicates`: rows that say what one before them says, exactly or with the similarity `deduplicate`, as in `curate`

The dataset has the columns of `data`, with `prompts` those of the prompt alone: what was sampled and scored is left
away, and answers or tests to check stay. `dropped.json` and the report have a few rows of each reason.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.algorithms import clean_text
from trimtab.pipelines.data import counting
from trimtab.pipelines.data.forms import CORPUS, OF_SAMPLES, PROMPTS, Data, Form
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring.combining import Combination, Missing
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.forecasting.work import Rows
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature

Test = Callable[[list[int]], Mapping[int, str]]  # the numbers of the rows that are left -> why some of them are not
SHOWN = 5  # rows of each reason that are kept to be looked at


@dataclass(kw_only=True)
class Filter(Stage):
    """`passing` and `prompts` need rows with `prompt_index`; `reward`, rows with `scores`."""

    data: Annotated[Data, CORPUS]
    reward: str | dict[str, float] | None = None
    missing: Missing = "abstain"
    right: float = 0.5
    passing: list[int] | None = None
    least: float | None = None
    share: float | None = None
    prompts: bool = False
    deduplicate: float | None = None
    decontaminate: Annotated[Data | None, PROMPTS] = None

    shows: ClassVar[Shows] = Shows(results=("rows", "left_out"), section="left out")

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        emptying = ("passing", "least", "decontaminate")  # of rows that are all alike, and right in nothing
        without = {key: None for key in emptying if block.get(key) is not None}
        return {**super().small(block, miniature), **without, **({"share": 1.0} if block.get("reward") else {})}

    def reads(self) -> dict[str, Form]:
        columns = ["scores"] if self.reward else []
        columns += ["prompt_index"] if self.passing or self.prompts else []
        return super().reads() | ({"data": CORPUS.where(*columns)} if columns else {})

    def check(self, step: Step) -> None:
        by_score = [key for key in ("passing", "least", "share") if getattr(self, key) is not None]
        if by_score and not self.reward:
            raise RecipeError(f"`{by_score[0]}` is of scores: name the reward", (*step.path, "reward"))
        if self.reward and not by_score:
            message = "says which scores, and not which rows: write `passing`, `least` or `share`"
            raise RecipeError(message, (*step.path, "reward"))
        if not (by_score or self.prompts or self.deduplicate or self.decontaminate):
            raise RecipeError("nothing would be left out: say what", step.path)
        if self.passing is not None and not (len(self.passing) == 2 and 0 <= self.passing[0] <= self.passing[1]):
            message = f"must be the fewest and the most right samples of a prompt, got {self.passing}"
            raise RecipeError(message, (*step.path, "passing"))
        for key in ("share", "deduplicate"):
            value = getattr(self, key)
            if value is not None and not 0 < value <= 1:
                raise RecipeError(f"must be above 0 and at most 1, got {value:g}", (*step.path, key))
        if self.reward:
            Combination.of(self.reward, self.missing).check_ahead(step)
        super().check(step)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        return known.rows("data")

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        from trimtab.pipelines.data.writing import write_rows

        rows = counting.rows(self.data, step, "data")
        why: dict[int, str] = {}
        left = list(range(len(rows)))
        for test in self._tests(rows, step):
            why |= test(left)
            left = [number for number in left if number not in why]
        counts = Counter(why.values())
        if not left:
            listed = ", ".join(f"{count} {reason}" for reason, count in counts.items())
            raise RecipeError(f"no row of {len(rows)} is left: {listed}", step.path)
        examples = _examples(rows, why)
        tracking.table("dropped", examples)
        if PartialState().is_main_process:
            (step.output / "dropped.json").write_text(json.dumps(examples, indent=1, ensure_ascii=False))
        kept = rows.select(left)
        if self.prompts:
            kept = kept.remove_columns([name for name in OF_SAMPLES if name in kept.column_names])
        dropped = {f"dropped/{reason}": count for reason, count in counts.items()}
        return {"read": len(rows), "rows": write_rows(step, kept), "left_out": len(why) / len(rows), **dropped}

    def _tests(self, rows: Dataset, step: Step) -> Iterator[Test]:
        """What is asked of the rows, in the order of the documentation."""
        if self.decontaminate:
            prompts = counting.rows(self.decontaminate, step, "decontaminate")["prompt"]
            held_out = clean_text.HeldOut(clean_text.asked(prompt) for prompt in prompts)
            yield lambda left: {number: "contaminated" for number in left if _asked(rows[number]) in held_out}
        if self.reward:
            yield from self._by_score(rows, step)
        if self.prompts:
            yield lambda left: dict.fromkeys(_later(left, rows["prompt_index"][:]), "repeated")
        if self.deduplicate:
            yield lambda left: dict.fromkeys(_duplicates(left, rows, self.deduplicate), "duplicates")

    def _by_score(self, rows: Dataset, step: Step) -> Iterator[Test]:
        combination = Combination.of(self.reward or {}, self.missing)
        combination.check(rows.features["scores"], (*step.path, "reward"))
        sums = [combination(given) for given in rows["scores"]]
        scores = [math.nan if total is None else total for total in sums]
        yield lambda left: {number: "unscored" for number in left if math.isnan(scores[number])}
        if self.passing is not None:
            fewest, most = self.passing
            groups = rows["prompt_index"][:]
            yield lambda left: _hardness(left, groups, scores, self.right, fewest, most)
        least, share = self.least, self.share
        if least is not None:
            yield lambda left: {number: "below" for number in left if scores[number] < least}
        if share is not None:
            yield lambda left: dict.fromkeys(_worst(left, scores, share), "beyond_share")


def _hardness(
    left: list[int], groups: list[int], scores: list[float], right: float, fewest: int, most: int
) -> dict[int, str]:
    """The rows of prompts that too few or too many samples get right."""
    why: dict[int, str] = {}
    of_prompts: dict[int, list[int]] = {}
    for number in left:
        of_prompts.setdefault(groups[number], []).append(number)
    for numbers in of_prompts.values():
        passed = sum(scores[number] >= right for number in numbers)
        if not fewest <= passed <= most:
            why |= dict.fromkeys(numbers, "too_hard" if passed < fewest else "too_easy")
    return why


def _worst(left: list[int], scores: list[float], share: float) -> list[int]:
    """The rows that are not among the best share, of which there is at least one; of equal ones the first is."""
    order = sorted(left, key=lambda number: -scores[number])
    return order[math.ceil(share * len(left)) :]


def _later(left: list[int], groups: list[int]) -> list[int]:
    first = {groups[number]: number for number in reversed(left)}
    return [number for number in left if first[groups[number]] != number]


def _duplicates(left: list[int], rows: Dataset, threshold: float | None) -> Iterable[int]:
    seen = clean_text.Seen(threshold)
    for number in left:
        row = rows[number]
        rest = [text(row[name]) for name in ("completion", "chosen", "rejected") if row.get(name) is not None]
        if seen.duplicate((_asked(row), "\n".join(rest))):
            yield number


def _asked(row: Mapping[str, Any]) -> str:
    """What a row asks, or else what it says."""
    asked = next(row[name] for name in ("prompt", "messages", "text", "chosen", "completion") if name in row)
    return clean_text.asked(asked)


def _examples(rows: Dataset, why: Mapping[int, str]) -> list[dict[str, Any]]:
    """The first rows of each reason, in short."""
    examples: list[dict[str, Any]] = []
    shown: Counter[str] = Counter()
    for number, reason in why.items():
        shown[reason] += 1
        if shown[reason] <= SHOWN:
            row = rows[number]
            said = text(row.get("completion") or row.get("chosen") or "")
            examples.append({"reason": reason, "row": number, "prompt": _asked(row), "completion": said})
    return examples
