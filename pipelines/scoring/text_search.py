"""The search for a better text from what goes wrong with one: GEPA (arXiv 2507.19457), with our calls behind it.

What a text is worth on a row is asked of a `Trial`, and rewrites of a reflector; both are kept in `calls.jsonl`. gepa
draws its random numbers from a seed: a run that was killed comes to the same questions, and is told what it has heard.
gepa's own state is a pickle, and is not used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import accumulate, pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from trimtab.pipelines.algorithms import statistics
from trimtab.pipelines.data import loading
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.scoring.reflector import Reflector
from trimtab.pipelines.scoring.rewriting import PART, Session, Trial
from trimtab.rewards._wording import FILE, is_place, wording

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step

CANDIDATES = "candidates.jsonl"  # in the artifact, beside the best text
BLIND = """\
Here is a text that an assistant or a judge is given with each of its tasks:
```
{text}
```

Write another text for the same place, with instructions of your own that may do better. You are not shown how this one
does. Provide the new text within ``` blocks."""


@dataclass(kw_only=True)
class TextSearch:
    """`budget` is how many rows may be tried in all, as gepa counts them.

    A rewrite meets its parent on `minibatch` rows of `prompts`; where it does better, all rows of the selection are
    tried, which choose the parents to come and the best. `method: random` is the control: the same search by the same
    reflector, which is shown no row. With `perfect`, a text that reaches this score on its rows is not rewritten.
    `asks` is the question in the place of gepa's own, with `<curr_param>` and `<side_info>` in it.
    """

    reflector: Reflector
    budget: int = 500
    minibatch: int = 3
    method: Literal["reflect", "random"] = "reflect"
    perfect: float | None = None
    asks: str | None = None

    @property
    def written(self) -> str:
        """The text that the search begins with, or its place, as the recipe has it."""
        raise NotImplementedError

    @classmethod
    def small_search(cls, block: Mapping[str, Any], miniature: Any) -> dict[str, Any]:
        """What a shrunk run changes: a tiny reflector in this process, and one rewrite of the few rows that it has."""
        model = block["reflector"]["model"]
        here = model if miniature.is_inside(model) else miniature.model("llama")
        return {"reflector": {"model": here, "max_tokens": 8}, "minibatch": 1, "budget": 50}

    def check_search(self, step: Step) -> None:
        """Raises RecipeError for what cannot be searched by."""
        if find_spec("gepa") is None:
            message = "texts are searched by gepa, which is missing: pip install 'trimtab[tuning]'"
            raise RecipeError(message, (*step.path, "kind"))
        for key in ("budget", "minibatch"):
            if getattr(self, key) < 1:
                raise RecipeError(f"must be at least 1, got {getattr(self, key)}", (*step.path, key))
        for place in ("<curr_param>", "<side_info>") if self.asks is not None else ():
            if place not in (self.asks or ""):
                raise RecipeError(f"has no {place}: the text, and what came of it, stand there", (*step.path, "asks"))
        if not (is_place(self.written) and step.pending(self.written)):
            self.start(step)

    def check_budget(self, step: Step, choosing: int) -> int:
        """The most calls that a rewrite takes. Raises RecipeError for a budget in which nothing can be rewritten."""
        of_rewrite = 2 * self.minibatch + choosing
        if self.budget < choosing + of_rewrite:
            message = (
                f"is {self.budget}: the start takes {choosing} calls, one rewrite up to {of_rewrite}. Raise it, or "
                "choose by fewer rows"
            )
            raise RecipeError(message, (*step.path, "budget"))
        return of_rewrite

    def start(self, step: Step) -> str:
        """The text that the search begins with. Raises RecipeError where there is none."""
        try:
            return wording(self.written)
        except ValueError as error:
            raise RecipeError(str(error), step.path) from error

    def search(
        self,
        step: Step,
        trial: Callable[[Dataset], Trial],
        learning: Dataset,
        choosing: Dataset | None,
        judging: Dataset | None,
    ) -> dict[str, float]:
        """Searches by rows to learn from and rows that choose, leaves the best text, and returns the step's metrics.

        Every rank calls it. `trial` tries texts on all rows, one behind the other. Those that judge are tried with the
        start and the best, beyond the budget. Raises RecipeError for a budget in which nothing can be rewritten, and
        RewardFailure without a reply.
        """
        import gepa
        from accelerate import PartialState

        parts = [rows for rows in (learning, choosing, judging) if rows is not None]
        ends = [0, *accumulate(map(len, parts))]
        numbers = [range(start, end) for start, end in pairwise(ends)]
        learned, chosen = numbers[0], numbers[0 if choosing is None else 1]
        judged = range(0) if judging is None else numbers[-1]
        of_rewrite = self.check_budget(step, len(chosen))
        start = self.start(step)
        session: Any = Session(step, trial(loading.joined(parts)), self._question, self.reflector, start)
        result: Any = gepa.optimize(
            {PART: start},
            list(learned),
            list(chosen),
            adapter=session,
            skip_perfect_score=self.perfect is not None,
            perfect_score=self.perfect if self.perfect is not None else 1.0,
            reflection_minibatch_size=self.minibatch,
            stop_callbacks=lambda state: bool(session.failed) or state.total_num_evals + of_rewrite > self.budget,
            callbacks=[session],
            logger=session,
            track_best_outputs=False,
            seed=step.seed,
        )
        if session.failed:
            raise session.failed[0]
        rewrites = session.rewrites
        first, best = rewrites[0], rewrites[session.of_candidate[result.best_idx]]
        if PartialState().is_main_process:
            (step.output / FILE).write_text(best.text, encoding="utf-8")
            lines = [{"number": number, **asdict(one)} for number, one in enumerate(rewrites)]
            written = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (step.output / CANDIDATES).write_text(written, encoding="utf-8")
        metrics: dict[str, float] = {
            "calls": session.calls,
            "rewrites": len(rewrites) - 1,
            "kept": len(session.of_candidate) - 1,
        }
        metrics |= {"selection/start": first.selection or 0.0, "selection/best": best.selection or 0.0}
        if judged:
            before, after = ([one.score for one in session.tried(one.text, judged)] for one in (first, best))
            gain, stderr = statistics.mean_stderr([new - old for new, old in zip(after, before, strict=True)])
            metrics |= {"held_out/start": fmean(before), "held_out/best": fmean(after)}
            metrics |= {"gain/mean": gain, "gain/stderr": stderr}
        return metrics

    def _question(self, text: str, rows: Sequence[Mapping[str, Any]]) -> str:
        """What the reflector is asked for: a rewrite of the text, with the rows where the method shows them."""
        from gepa.strategies.instruction_proposal import InstructionProposalSignature

        if self.method == "random":
            return BLIND.format(text=text)
        shown = {"current_instruction_doc": text, "dataset_with_feedback": rows, "prompt_template": self.asks}
        return str(InstructionProposalSignature.prompt_renderer(shown))
