"""Kind `preflexor`: a student learns to think from a teacher who reads a corpus, in rounds (PRefLexOR, 2410.12375).

    preflexor:
      model: {model_name_or_path: $sft}                 # the student, with the marks in its vocabulary
      corpus: {path: corpus.jsonl}
      teacher: {model: {model_name_or_path: org/teacher}, generate: {max_new_tokens: 400}}   # keys of `sample`
      rounds: 3
      questions: 50                                     # of a round
      generate: {max_new_tokens: 600}                   # of the student
      prefer: {loss: exo, epsilon: 0.005, mask: {before: "<|/thinking|>"}}
      train: {learning_rate: 5e-7, num_train_epochs: 1}

A macro. Each round `n` is

    NAME-n-chunks      passages of the corpus, none again before all have had their turn
    NAME-n-questions   the teacher asks about them
    NAME-n-study       each question with passages that are found for it (BM25), a prompt for each part of thinking
    NAME-n-parts       the teacher thinks and answers
    NAME-n-thoughts    what it said as one answer, the chosen one
    NAME-n-sample      the current student's own answer, which is rejected
    NAME-n-score       with `verify`: its scores, of which `accept` says what is not rejected
    NAME-n-pairs       both
    NAME-n             the student, trained on them by `prefer`; NAME of the last round

The paper's first phase is `prefer: {loss: orpo, beta: 0.1}`, and its second one, of
another stage that begins with the first one's student, `exo` with a mask on what was thought. There the chosen answer
has thoughts and the rejected one may have none, so that form alone tells them apart: with the mask,
`rewards/accuracies` and `margins` are of the answers behind the marks. `think: false` is the control: the same
questions, answers and steps without any thinking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from trimtab.pipelines.data.forms import TEXT, Data
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import KeysOf
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.sampling.settings import LOADING, Sampling
from trimtab.pipelines.stages import Stage, StepOptions

if TYPE_CHECKING:
    from trimtab.pipelines.shrinking.miniature import Miniature

REVISION = "model_revision"  # of the first student


@dataclass(kw_only=True)
class Preflexor(Sampling, Stage):
    """`words`, `overlap`, `contexts` are those of `chunks`, `passages`, `parts` of `study`, `asks` of `thoughts`."""

    model: Annotated[dict[str, Any], KeysOf(("trl.ModelConfig",))]
    corpus: Annotated[Data, TEXT]
    teacher: Annotated[dict[str, Any], KeysOf(("sample",))]
    rounds: int = 1
    questions: int = 50
    words: int = 200
    overlap: int = 20
    contexts: int = 1
    passages: int = 3
    parts: dict[str, str] | None = None
    marks: list[str] | None = None
    asks: str | None = None
    think: bool = True
    drop_truncated: bool = True
    verify: dict[str, RewardBlock] = field(default_factory=dict)
    accept: dict[str, float] = field(default_factory=dict)
    num_generations: int = 1
    prefer: Annotated[dict[str, Any], KeysOf(("prefer",))] = field(default_factory=dict)
    train: Annotated[dict[str, Any], KeysOf(("trl.SFTConfig",))] = field(default_factory=dict)

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        few = {"questions": 4, "words": 8, "overlap": 0, "contexts": 1, "drop_truncated": False, "num_generations": 1}
        return {**super().small(block, miniature), **few}

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        loop = cls.as_written(name, options)
        loop._check(("stages", name))
        student, before = dict(loop.model), {key: loop.model[key] for key in (*LOADING, REVISION) if key in loop.model}
        for number in range(1, loop.rounds + 1):
            of = f"{name}-{number}"
            loaded = {**before, "model_name_or_path": student["model_name_or_path"]}
            yield from loop._teaching_steps(of, number)
            sampling = {"model": loaded, "prompts": f"${of}-thoughts", **cls.handed_on(options)}
            yield f"{of}-sample", "sample", {**sampling, "seed_offset": number - 1}
            answers = f"${of}-sample"
            if loop.verify:
                yield f"{of}-score", "score", {"completions": answers, "rewards": loop.verify}
                answers = f"${of}-score"
            pairing = {"completions": answers, "model": loaded, **({"accept": loop.accept} if loop.accept else {})}
            yield f"{of}-pairs", "contrast", pairing
            training = {"model": student, "data": f"${of}-pairs", "reference": "computed", **loop.prefer}
            step_name = of if number < loop.rounds else name
            yield step_name, "prefer", {**training, "train": {**loop.train, **loop.prefer.get("train", {})}}
            student = {key: student[key] for key in student if key != REVISION}
            student["model_name_or_path"] = f"${of}"
            before.pop(REVISION, None)

    def _teaching_steps(self, of: str, number: int) -> Iterator[StepOptions]:
        """From the corpus to the answers that are chosen."""
        cut = {"words": self.words, "overlap": self.overlap}
        drawn = {"data": self.corpus, **cut, "contexts": self.contexts, "count": self.questions, "round": number}
        asking = {**self.teacher, "num_generations": 1, "seed_offset": number - 1}
        parts = {"parts": self.parts} if self.parts is not None else {}
        written = {"think": self.think, "drop_truncated": self.drop_truncated}
        yield f"{of}-chunks", "chunks", drawn
        yield f"{of}-questions", "sample", {**asking, "prompts": f"${of}-chunks"}
        studied = {"questions": f"${of}-questions", "corpus": self.corpus, **cut, "passages": self.passages}
        yield f"{of}-study", "study", {**studied, **parts, **({} if self.think else {"parts": {}})}
        yield f"{of}-parts", "sample", {**asking, "prompts": f"${of}-study"}
        marks = {"marks": self.marks} if self.marks is not None else {}
        asks = {"asks": self.asks} if self.asks is not None else {}
        yield f"{of}-thoughts", "thoughts", {"parts": f"${of}-parts", **written, **marks, **asks}

    def _check(self, path: tuple[str, ...]) -> None:
        for key in ("rounds", "questions"):
            if getattr(self, key) < 1:
                raise RecipeError(f"must be at least 1, got {getattr(self, key)}", (*path, key))
        if self.num_generations != 1:
            message = f"must be 1, the student's answer that is rejected, got {self.num_generations}"
            raise RecipeError(message, (*path, "num_generations"))
        if bool(self.verify) != bool(self.accept):
            message = "`verify` names rewards and `accept` the least of each that is not rejected: give both or none"
            raise RecipeError(message, (*path, "accept" if self.verify else "verify"))
        if self.model.get("model_name_or_path") is None:
            message = "required key is missing: a local path, a hub name or $stage"
            raise RecipeError(message, (*path, "model", "model_name_or_path"))
