"""Kind `reflect`: a policy that thinks, is told how to think better, and answers anew, in rounds.

    reflect:
      model: {model_name_or_path: $reason}
      prompts: $held_out
      critic: {model: {model_name_or_path: org/critic}, generate: {max_new_tokens: 400}}      # keys of `sample`
      rounds: 3

A macro, PRefLexOR's recursive inference (arXiv 2410.12375). The policy answers (`NAME-0-sample`); in each round `n` a
critic reads its thoughts and answer and writes the thoughts anew (`NAME-n-critique`, `NAME-n-thoughts`), and the
policy goes on from them to an answer (`NAME-n-prefill`, `NAME-n-sample`). `NAME-n` holds the answers of a round and
`$NAME` those of the last one, with the tokens that all rounds have drawn in `spent`. Every round asks every prompt;
each of its `num_generations` answers has thoughts and a critic of its own.

    evaluate: {policies: {reason: $reason}, reflect: {reason: {critic: {...}, rounds: 3}}, ...}

does the same with the policy and the prompts of an evaluation, and compares it with the policy's best of as many
samples as come to the same tokens. A critic that knows no better makes thoughts longer, and nothing better.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import trl

from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import KeysOf
from trimtab.pipelines.sampling.settings import Sampling
from trimtab.pipelines.stages import Stage, StepOptions


@dataclass(kw_only=True)
class Reflect(Sampling, Stage):
    """`asks` is what the critic is asked, as in `critique`."""

    model: trl.ModelConfig
    prompts: Annotated[Data, PROMPTS]
    critic: Annotated[dict[str, Any], KeysOf(("sample",))]
    rounds: int = 2
    marks: list[str] | None = None
    asks: str | None = None
    num_generations: int = 1

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        macro = cls.as_written(name, options)
        if macro.rounds < 1:
            raise RecipeError(f"must be at least 1, got {macro.rounds}", ("stages", name, "rounds"))
        marks = {"marks": macro.marks} if macro.marks is not None else {}
        asks = {"asks": macro.asks} if macro.asks is not None else {}
        sampling = {"model": options["model"], **cls.handed_on(options)}
        yield f"{name}-0-sample", "sample", {**sampling, "prompts": macro.prompts}
        answers = f"${name}-0-sample"
        for number in range(1, macro.rounds + 1):
            of = f"{name}-{number}"
            yield f"{of}-critique", "critique", {"completions": answers, **marks, **asks}
            criticised = {**macro.critic, "prompts": f"${of}-critique", "num_generations": 1}
            yield f"{of}-thoughts", "sample", {**criticised, "seed_offset": number}
            filled = {"thoughts": f"${of}-thoughts", "model": options["model"], **marks}
            yield f"{of}-prefill", "prefill", filled
            again = {**sampling, "prompts": f"${of}-prefill", "num_generations": 1, "seed_offset": number}
            yield f"{of}-sample", "sample", again
            last = of if number < macro.rounds else name
            yield last, "reflected", {"completions": f"${of}-sample", **marks}
            answers = f"${last}"
