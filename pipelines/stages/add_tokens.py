"""Kind `add_tokens`: a model whose vocabulary has further tokens, such as the marks around what it thinks.

    add_tokens: {model: {model_name_or_path: $base}, added_tokens: ["<|thinking|>", "<|/thinking|>"]}

The artifact is a complete model: its embeddings and its head have a row for each new token, the mean of all others
with a little noise, and the tokens are saved with the tokenizer. `sft: {added_tokens: [...]}` does the same before it
trains. A token is one id wherever it stands, and stays in the text of an answer. Those that the vocabulary has stay
as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import trl

from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.pipelines.training import added_tokens, inputs

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class AddTokens(Stage):
    """Of `model`, `model_name_or_path` and `model_revision` count: the weights keep the dtype of their file."""

    model: trl.ModelConfig
    added_tokens: list[str]

    head: ClassVar[Literal["words", "score"] | None] = "words"
    shows: ClassVar[Shows] = Shows(results=("added", "vocabulary"))

    def check(self, step: Step) -> None:
        place = (*step.path, "added_tokens")
        message = added_tokens.wrong(self.added_tokens) or ("" if self.added_tokens else "names no token")
        if message:
            raise RecipeError(message, place)
        tokenizer = inputs.tokenizer(self.model, None, step)
        if tokenizer is not None:
            self._add(tokenizer, step)
        super().check(step)

    def work(self, known: Known) -> Work:
        return Work("files", leaves=known.model(self.makes()))

    def folders(self) -> Collection[str]:
        return ()

    def makes(self) -> Any:
        return self.model

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState
        from transformers import AutoModelForCausalLM

        if not PartialState().is_main_process:
            return {}  # the others wait for it where the step is published
        tokenizer = inputs.tokenizer(self.model, None, step)
        assert tokenizer is not None  # the step above is done
        known = len(tokenizer)
        ids = self._add(tokenizer, step)
        model = AutoModelForCausalLM.from_pretrained(
            self.model.model_name_or_path, revision=self.model.model_revision, dtype="auto"
        )
        added_tokens.embed(model, ids, known, step.seed)
        model.save_pretrained(step.output)
        tokenizer.save_pretrained(step.output)
        return {"added": len(ids), "vocabulary": len(tokenizer), "parameters": model.num_parameters()}

    def _add(self, tokenizer: Any, step: Step) -> list[int]:
        try:
            return added_tokens.add(tokenizer, self.added_tokens)
        except ValueError as error:
            raise RecipeError(str(error), (*step.path, "added_tokens")) from error
