"""Kind `tune_text`: a better system prompt, written from what goes wrong with one (GEPA, arXiv 2507.19457).

    tune_text:
      text: "Solve the problem and end with the answer."       # where it begins; "" is none
      model: {model_name_or_path: $sft}                         # who answers, with the keys of `sample`
      generate: {max_new_tokens: 256}
      prompts: {path: problems.jsonl, split: "train[:100]"}
      eval_prompts: {path: problems.jsonl, split: "train[100:300]"}
      rewards: {right: {kind: math}}
      reward: right
      hints: [answer]
      reflector: {model: Qwen/Qwen3-32B, url: "http://host:8000/v1/chat/completions"}
      budget: 600
    tune_text: {..., method: random}                            # the control: rewrites that have seen no failure

A reflector is shown prompts, answers and what rewards say of them, and rewrites the text; a rewrite that does better
than its parent on `minibatch` prompts is tried on all prompts of the selection (`select_prompts`, by default
`prompts`), which choose the parents of later ones and the best. Answers are drawn with the same random numbers for
every text. The budget counts prompts that were answered and scored; `eval_prompts` come beyond it, and are answered
with the start and the best alone: `gain/mean` is what was won there, paired by prompt, with its standard error. On
the prompts that have chosen it would flatter.

The artifact is `text.txt`, which `preface: {text: $tune_text}` puts before prompts, and `candidates.jsonl`: every
rewrite with its parent, the question and the reply that it came of, and its scores. A run that is killed asks nothing
again: `calls.jsonl` in the step's folder has all answers and replies. `tune_reward` does the same for a reward's text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import PROMPTS, Data, Form
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.passes import Drawing
from trimtab.pipelines.forecasting.work import Held, Work
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.sampling import generation
from trimtab.pipelines.sampling.servers import Servers
from trimtab.pipelines.sampling.settings import Sampling
from trimtab.pipelines.scoring import readers
from trimtab.pipelines.scoring.combining import Combination, Missing
from trimtab.pipelines.scoring.reflector import Reflector
from trimtab.pipelines.scoring.text_search import TextSearch
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.pipelines.training import inputs, lineage

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.data.audit.checking import Audit
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


@dataclass(kw_only=True)
class TuneText(TextSearch, Sampling, Stage):
    """`text` is written out, or the name of a file or of a stage that leaves one. `engine` is transformers or server.

    `hints` are columns of the prompts that the reflector is told, such as the right answer.
    """

    text: str
    model: trl.ModelConfig
    prompts: Annotated[Data, PROMPTS]
    select_prompts: Annotated[Data | None, PROMPTS] = None
    eval_prompts: Annotated[Data | None, PROMPTS] = None
    rewards: dict[str, RewardBlock]
    reward: str | dict[str, float]
    missing: Missing = "abstain"
    hints: list[str] = field(default_factory=list)
    num_generations: int = 1

    shows: ClassVar[Shows] = Shows(
        {"Selection, the best text": ("selection/best",), "Texts": ("rewrites", "kept")},
        results=("gain/mean", "held_out/best", "rewrites"),
        compares=("gain/mean", "held_out/best"),
    )

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), **cls.small_search(block, miniature), "num_generations": 1}

    @classmethod
    def neutral_inside(cls, key: str, block: Mapping[str, Any]) -> Collection[str]:
        kinds: dict[str, Any] = {"server": Servers, "reflector": Reflector}
        return kinds[key].neutral if key in kinds else super().neutral_inside(key, block)

    def reads(self) -> dict[str, Form]:
        return {key: form.where(*self.hints) for key, form in super().reads().items()}

    def audit_of(self, step: Step) -> Audit:
        audit = inputs.audit(self.model, None, self.audit, step, room=self._longest)
        return readers.added(audit, self.rewards, lineage.ahead)

    def check(self, step: Step) -> None:
        if self.engine not in ("transformers", "server"):
            message = f"prompts change with every text, which is for transformers or server, got {self.engine}"
            raise RecipeError(message, (*step.path, "engine"))
        self.check_sampling(step)
        self.check_search(step)
        Combination.of(self.reward, self.missing).check(self.rewards, (*step.path, "reward"))
        super().check(step)
        choosing = self.select_prompts or self.prompts
        if not any(map(step.pending, chain.from_iterable(map(loading.files, choosing.datasets)))):
            self.check_budget(step, len(loading.load(choosing, step.path)))

    def work(self, known: Known) -> Work:
        model, prompts = known.model(self.model), known.rows("prompts")
        asked = self.budget + 2 * (known.rows("eval_prompts").count if self.eval_prompts else 0)
        count, lengths = asked * self.num_generations, known.lengths(self.model, self._longest)
        if self.server is not None:
            return Work("rows", handled=count)
        drawn = Drawing(model, prompts, count, self.sample_batch_size, lengths, self._longest, self.num_generations)
        return Work("models", (Held(model),), draws=(drawn,), handled=count)

    def folders(self) -> Collection[str]:
        return ()

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return Promise(columns=())  # a text, and no rows

    @property
    def written(self) -> str:
        return self.text

    @property
    def _longest(self) -> int:
        return self.generate.get("max_new_tokens") or generation.MAX_NEW_TOKENS

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.scoring.prefaced_policy import PrefacedPolicy

        def trial(rows: Dataset) -> PrefacedPolicy:
            combination = Combination.of(self.reward, self.missing)
            return PrefacedPolicy(step, rows, self.model, self, self.rewards, combination, self.hints)

        def kept(key: str) -> Dataset | None:
            if getattr(self, key) is None:
                return None
            rows, counts = self.audit_of(step).kept(getattr(self, key), key, PROMPTS, self.held_out(key))
            tracking.log(counts)
            return rows

        return self.search(step, trial, *map(kept, ("prompts", "select_prompts", "eval_prompts")))
