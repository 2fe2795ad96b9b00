"""Kind `prefer`: preference optimisation on lists of sampled answers, without a reference model in memory.

    pair: {completions: $score, reward: helpful, select: ends}
    prefer: {model: {model_name_or_path: $sft}, data: $pair, loss: sppo, beta: 0.001, train: {learning_rate: 5e-7}}

`pair` with `select: ends` (best and worst) or `select: ranked` (all answers) makes the rows: the tokens as they were
sampled and the log-probabilities of the policy that sampled them, which is the reference and has to be `model`. A
sample of them is computed again before training, and the step ends with an error where they are another model's.

An answer that was cut, with no stop within `max_new_tokens`, is learned as it was sampled: no end token is put behind
it, which the policy has not drawn and the stored log-probability is not of. trl's own trainers, as `dpo` on text, put
one there and teach the policy to stop in the middle; `sample` counts such answers in `truncated`.

Losses, with their form for K > 2 answers in pipelines/algorithms/losses/: `dpo`, `ipo` (on sums over tokens as in
its paper; trl's divides by the length), `sppo` (eta = 1 / beta) and `exo` (`epsilon` is its label smoothing); `orpo`
(beta is its lambda) and `rrhf` (no beta) use no reference. `plackett_luce` is `dpo` by the name of its list form.

    prefer: {loss: exo, mask: {before: "<|/thinking|>"}, ...}              # what was thought is read, and not learned
    prefer: {mask: {inside: ["<|thinking|>", "<|/thinking|>"], share: 0.2}, ...}   # a random fifth of it is not

masks tokens of the answers, with every loss: they have no gradient, and the sums, means and metrics are those of the
other tokens. The marks are tokens of the vocabulary (`added_tokens` of scratch or sft). An answer without its mark is
counted and, by `missing`, learned whole (as in the code of arXiv 2410.12375), left out with its row (`drop`) or an
`error`; a row with an answer that has nothing behind its mark is left out. A random share is drawn once per answer.

`reference: computed` has the model tell the log-probabilities that it is held against, in one pass before it is
trained: for answers that it has not sampled, and wherever there is a mask, whose sums are not those that are stored.

`train.per_device_train_batch_size` counts prompts, each with all its answers. Rows beyond `train.max_length` are left
out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import trl

from trimtab.pipelines.algorithms import losses
from trimtab.pipelines.algorithms.answer_masks import AnswerMask, Unlearnable
from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import LISTS, Data, Form
from trimtab.pipelines.forecasting import trainers
from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.planning import outlines
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import WordOf
from trimtab.pipelines.planning.kinds import LOSSES
from trimtab.pipelines.reporting.shows import PREFERENCE, Shows
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training import inputs, lineage, list_references
from trimtab.pipelines.training.fit import fit
from trimtab.rewards._vocabulary import foreign

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.trainers.masked_answers import MaskedAnswers

VERIFIED = 16  # rows whose reference is computed again
NATS, SHARE = 0.5, 0.02  # an answer's log-probability may differ by either: arithmetic in bfloat16 does
UNUSED = {  # keys of trl.SFTConfig with the one value that lists leave them
    "packing": False,
    "padding_free": False,
    "assistant_only_loss": False,
    "shuffle_dataset": False,
    "loss_type": "nll",
    "label_smoothing_factor": 0,
}


@dataclass(kw_only=True)
class Prefer(TrainerStage):
    """`eval_data` is evaluated at the end, and during training when `train.eval_strategy` says so."""

    model: trl.ModelConfig
    data: Annotated[Data, LISTS]
    eval_data: Annotated[Data | None, LISTS] = None
    loss: Annotated[str, WordOf(LOSSES)] = "dpo"
    beta: float = 0.1
    epsilon: float = 1e-3
    mask: AnswerMask | None = None
    reference: Literal["stored", "computed"] | None = None
    train: trl.SFTConfig

    neutral_when_empty: ClassVar[tuple[str, ...]] = (*TrainerStage.neutral_when_empty, "mask", "reference")
    cuts_by_tokens: ClassVar[bool] = True
    shows: ClassVar[Shows] = PREFERENCE

    def reads(self) -> dict[str, Form]:
        form = replace(LISTS, columns=(("prompt", "completions", *self._columns()),))
        return {"data": form, "eval_data": form}

    def check(self, step: Step) -> None:
        if not self.beta > 0:
            raise RecipeError(f"must be above 0, got {self.beta}", (*step.path, "beta"))
        if not 0 < self.epsilon < 0.5:
            raise RecipeError(f"must be between 0 and 0.5, got {self.epsilon}", (*step.path, "epsilon"))
        if self.mask is not None and self.reference == "stored":
            message = "`stored` are log-probabilities of whole answers, and `mask` learns a part: leave it out"
            raise RecipeError(message, (*step.path, "reference"))
        self._marks(step)
        for name, default in UNUSED.items():
            if getattr(self.train, name) != default:
                raise RecipeError("has no meaning for lists of answers", (*step.path, "train", name))
        for key in ("data", "eval_data"):
            block = getattr(self, key)
            sources = list(chain.from_iterable(map(loading.files, block.datasets))) if block else []
            if sources and not any(map(step.pending, sources)):
                rows = loading.load(block, (*step.path, key))
                self._check_rows(rows, ", ".join(sources), (*step.path, key))
                self._check_vocabulary(rows, step, (*step.path, key))
        super().check(step)

    def work(self, known: Known) -> Work:
        rows = known.rows("data")
        return trainers.offline(self, known, trainers.Shape(rows.tokens.shape[1]), rows)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.trainers.lists import ListTrainer
        from trimtab.pipelines.trainers.masked_answers import MaskedAnswers

        for key in ("data", "eval_data") if self.eval_data else ("data",):
            place = (*step.path, key)
            self._check_vocabulary(loading.load(getattr(self, key), place), step, place)
        marks = self._marks(step)
        mask = MaskedAnswers(self.mask, marks, step.seed) if self.mask and marks else None
        look = partial(self._look, step, mask)
        try:
            return fit(ListTrainer, self, step, loss=self._loss(), mask=mask, computed=self._computes, look=look)
        except Unlearnable as error:
            raise RecipeError(str(error), (*step.path, "mask")) from error

    @property
    def _computes(self) -> bool:
        """Whether the reference is computed here."""
        return self.mask is not None or self.reference == "computed"

    def _marks(self, step: Step) -> tuple[int, ...] | None:
        """The ids of the mask's marks; None without one, or where nothing is known of the vocabulary yet.

        Raises RecipeError for a mark that is no token of its own.
        """
        if self.mask is None:
            return None
        tokenizer = inputs.tokenizer(self.model, self.train, step)
        if tokenizer is None:  # of a model that a step above is to make, what it begins with says it
            tokenizer, _ = lineage.ahead(step, str(self.model.model_name_or_path)) or (None, None)
        if tokenizer is None:
            return None
        added = tokenizer.get_added_vocab()
        missing = next((mark for mark in self.mask.marks if mark not in added), None)
        if missing is not None:
            raise RecipeError(
                f"{missing!r} is no token that was added to the vocabulary of {self.model.model_name_or_path}: add it "
                "with `added_tokens` of sft or scratch",
                (*step.path, "mask", "before" if self.mask.before else "inside"),
            )
        return tuple(added[mark] for mark in self.mask.marks)

    def _look(self, step: Step, mask: MaskedAnswers | None, trainer: Any) -> dict[str, float]:
        """Sees to the reference while the model is the step's input, and says what the mask has counted."""
        counts = {
            f"mask/{name.removesuffix('_dataset')}/{key}": value
            for name, counted in trainer.masked.items()
            for key, value in counted.items()
        }
        if not self._has_reference:
            return counts
        if not self._computes:
            return counts | self._verify(step, trainer)
        with list_references.untrained(trainer, self.model) as policy:
            list_references.compute(trainer, policy, mask)
        return counts

    @property
    def _has_reference(self) -> bool:
        return "ref_logps" in losses.columns(self._parameters())

    def _loss(self) -> Any:
        loss = losses.named(self.loss)
        takes = self._parameters()
        return partial(loss, **{key: getattr(self, key) for key in ("beta", "epsilon") if key in takes})

    def _parameters(self) -> tuple[str, ...]:
        """What the loss takes, as its source says it: a plan imports no torch for it."""
        return outlines.parameters(f"{LOSSES}.{self.loss}.{self.loss}")

    def _columns(self) -> tuple[str, ...]:
        numbers = losses.columns(self._parameters()).values()
        stored = [column for column in numbers if not (self._computes and column == "ref_logps")]
        return ("prompt_ids", "completion_ids", *stored)

    def _check_rows(self, rows: Any, source: str, place: tuple[str, ...]) -> None:
        prompt, answers, *numbers = self._columns()
        missing = [name for name in (prompt, answers, *numbers) if name not in rows.column_names]
        if missing:
            raise RecipeError(
                f"{source} has no column {', '.join(map(repr, missing))} (it has: {', '.join(rows.column_names)}): "
                "`pair: {select: ends}` or `{select: ranked}` makes it, from completions as `sample` leaves them",
                place,
            )
        for index, row in enumerate(rows):
            if wrong := _wrong(row, prompt, answers, numbers):
                raise RecipeError(f"{source}, row {index}: {wrong}", place)

    def _check_vocabulary(self, rows: Any, step: Step, place: tuple[str, ...]) -> None:
        """Raises RecipeError for a row whose token ids mean something else to the model, where it is there already."""
        tokenizer = inputs.tokenizer(self.model, self.train, step)
        if tokenizer is None or "vocabulary" not in rows.column_names:
            return
        for row in foreign(tokenizer, rows["vocabulary"][:])[:1]:
            model = self.model.model_name_or_path
            raise RecipeError(
                f"row {row} was sampled with another vocabulary than that of {model}: set `model` to the model that "
                "`sample` used, or train `dpo` on `pair` with `select: best_worst`, which reads text",
                place,
            )

    def _verify(self, step: Step, trainer: Any) -> dict[str, float]:
        """The largest difference between the stored log-probabilities and the model's, in nats per answer.

        Raises RecipeError where it is more than rounding. Every rank does the same, so that all of them stop.
        """
        largest = 0.0
        with list_references.untrained(trainer, self.model) as policy:
            for key in ("data", "eval_data") if self.eval_data else ("data",):
                rows = loading.load(getattr(self, key), (*step.path, key))
                for i in range(0, len(rows), math.ceil(len(rows) / VERIFIED)):  # from all over a mixture
                    largest = max(largest, self._verify_row(rows[i], i, policy, (*step.path, key)))
        return {"ref_logps/largest_error": largest}

    def _verify_row(self, row: dict[str, Any], number: int, policy: Any, place: tuple[str, ...]) -> float:
        from trimtab.pipelines.sampling import transformers_engine

        model, words = self.model.model_name_or_path, policy.get_input_embeddings().num_embeddings
        prompt, answers, stored = (row[name] for name in ("prompt_ids", "completion_ids", "ref_logps"))
        if max(max(ids) for ids in (prompt, *answers)) >= words:
            raise RecipeError(f"row {number} has token ids that {model} does not know", place)
        largest = 0.0
        computed = map(sum, transformers_engine.logprobs(policy, [prompt] * len(answers), answers))
        for k, (theirs, ours) in enumerate(zip(stored, computed, strict=True)):
            largest = max(largest, abs(theirs - ours))
            if not abs(theirs - ours) <= max(NATS, SHARE * abs(theirs)):
                raise RecipeError(
                    f"the reference is another model than the sampler: in row {number}, ref_logps of answer {k} is "
                    f"{theirs:.2f} nats and {model} gives {ours:.2f}. Set `model` to the model that `sample` used, or "
                    "sample anew",
                    place,
                )
        return largest


def _wrong(row: dict[str, Any], prompt: str, answers: str, numbers: Sequence[str]) -> str | None:
    """What is wrong with a row, whose columns `numbers` hold one number for each answer; None where nothing is."""
    count = len(row[answers] or ())
    if count < 2 or not row[prompt] or not all(row[answers]):
        return "needs a prompt and two answers or more, of one token or more each"
    for name in numbers:
        if len(row[name] or ()) != count:
            return f"{name!r} is not a list of {count} numbers, one for each of {answers!r}"
    if not all(math.isfinite(value) for value in chain.from_iterable(row[name] for name in numbers)):
        return f"{' or '.join(map(repr, numbers))} has a value that is not finite"
    if "win_probs" in numbers and not all(0 <= value <= 1 for value in row["win_probs"]):
        return "'win_probs' has a value that is no probability"
    if "ref_logps" in numbers and max(row["ref_logps"]) > 1e-3:  # more than rounding
        return "'ref_logps' has a value above 0: it is the logarithm of a probability"
    return None
