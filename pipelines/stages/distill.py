"""Kind `distill`: a student learns a teacher's next-token probabilities on its own answers (trl.DistillationTrainer).

    distill:
      model: {model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct}
      teacher: {model_name_or_path: Qwen/Qwen2.5-7B-Instruct, dtype: bfloat16}
      data: $prompts
      train: {beta: 1.0, learning_rate: 1e-6, max_completion_length: 256}

Agarwal et al. 2024 (arXiv 2306.13649): the student answers, and at every token of its answer moves towards the
teacher's distribution. `train.beta` is the divergence: 0 forward KL, 1 (trl's default) reverse KL, between them the
generalised Jensen-Shannon divergence. Both models have one vocabulary. Teaching by the teacher's answers, without its
probabilities, is `sample` and `sft`, and needs no common vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import trl

from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.forecasting import trainers
from trimtab.pipelines.forecasting.passes import Drawing, Pass
from trimtab.pipelines.forecasting.work import Held, Work
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import LOSS, Shows
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training import inputs, online
from trimtab.pipelines.training.fit import fit

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step

BY_BLOCK = {
    "teacher_model_name_or_path": "`teacher.model_name_or_path`",
    "teacher_model_revision": "`teacher.model_revision`",
}


@dataclass(kw_only=True)
class Distill(TrainerStage):
    """`data` are prompts; `eval_data` is answered, and the divergence of the answers is `eval/loss`."""

    model: trl.ModelConfig
    teacher: trl.ModelConfig
    data: Annotated[Data, PROMPTS]
    eval_data: Annotated[Data | None, PROMPTS] = None
    train: trl.DistillationConfig

    shows: ClassVar[Shows] = Shows(
        {"Divergence from the teacher": LOSS, "Tokens": ("train/completions/mean_length",)},
        ("eval/loss", "train/loss"),
        ("eval/loss",),
        watches=("train/loss", "train/completions/mean_length", "train/learning_rate"),
    )

    def check(self, step: Step) -> None:
        online.check_set_elsewhere(self, step, BY_BLOCK)
        online.check_sampler(self, step)
        super().check(step)
        self._check_vocabularies(step)

    def _check_vocabularies(self, step: Step) -> None:
        """Raises RecipeError where the teacher's tokens are not the student's, as far as both models are there."""
        from trimtab.rewards._vocabulary import identity

        name = self.teacher.model_name_or_path
        if not name:
            place = (*step.path, "teacher", "model_name_or_path")
            raise RecipeError("required key is missing: a local path, a hub name or $stage", place)
        students = inputs.tokenizer(self.model, self.train, step)
        teachers = None if step.pending(name) else inputs.tokenizer(self.teacher, None, step)
        if students is not None and teachers is not None and identity(students) != identity(teachers):
            message = f"{name} has another vocabulary than {self.model.model_name_or_path}, and a divergence is token "
            raise RecipeError(f"{message}by token: use `sample` and `sft`", (*step.path, "teacher"))

    def work(self, known: Known) -> Work:
        train, setting = self.train, known.setting
        model, teacher = known.model(self.model), known.model(self.teacher)
        prompts = known.rows("data")
        most = train.max_completion_length
        lengths = known.lengths(self.model, most)
        answers = prompts.answered(lengths)
        steps = trainers.updates(train, prompts.count, setting.rows_of_update)
        rows = steps * setting.rows_of_update
        drawn = Drawing(model, prompts, rows, setting.batch * setting.accumulation, lengths, most)
        passes = (Pass(model, answers, rows, setting.batch, backward=True), Pass(teacher, answers, rows, 1))
        held = Held(model, is_trained=True), Held(teacher)
        return Work("trainer", held, passes, steps, draws=(drawn,), leaves=model)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.trainers.distillation import DistillationTrainer

        teacher = self.teacher
        self.train.teacher_model_revision = teacher.model_revision
        self.train.teacher_model_init_kwargs = {
            "dtype": teacher.dtype,
            "attn_implementation": teacher.attn_implementation,
            **(self.train.teacher_model_init_kwargs or {}),
        }
        return fit(DistillationTrainer, self, step, teacher_model=teacher.model_name_or_path)
