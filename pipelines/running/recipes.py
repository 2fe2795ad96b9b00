"""A recipe in Python: load it, look at its steps, run it, and have the artifacts.

from trimtab import Recipe

recipe = Recipe.load("mine.yaml", ["stages.dpo.train.beta=0.2"])
recipe.run(only="dpo")["dpo"].output
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.pipelines.planning import preflight
from trimtab.pipelines.planning import recipe as planning
from trimtab.pipelines.planning.table import table
from trimtab.pipelines.running import consents, runner


class RunFailed(RuntimeError):
    """A run that did not finish, with the exit code that the command would have; what was wrong has been printed."""

    def __init__(self, path: str, code: int):
        self.code = code
        super().__init__(
            f"{path}: exit code {code}: the reason stands above; the same call continues where it stopped"
        )


@dataclass(frozen=True)
class Recipe:
    """A recipe and its `plan`, which can be run in this process."""

    plan: planning.Recipe

    @classmethod
    def load(cls, path: str, overrides: Sequence[str] = (), *, trusting: bool = False) -> Recipe:
        """The plan of a recipe, with overrides as on the command line. Raises RecipeError.

        `trusting` consents to the code that it names, as --trust does.
        """
        return cls(consents.load(str(path), overrides, trusting=trusting, refusing=False))

    @property
    def steps(self) -> tuple[planning.Step, ...]:
        """All steps, in the order in which they run."""
        return self.plan.steps

    def check(self) -> None:
        """Looks at everything that can be looked at before a run. Raises RecipeError with all that is wrong."""
        preflight.check(self.plan, self.steps)

    def run(self, only: str | Sequence[str] | None = None, *, rebuild: bool = False) -> dict[str, planning.Step]:
        """Runs what is pending (of the stages `only`) in this process, and returns the steps by their names.

        Raises RunFailed where a step is not done afterwards, and KeyboardInterrupt after an interruption, when what is
        finished is kept.
        """
        code = runner.train(self.plan.path, self.plan.overrides, only, rebuild=rebuild)
        if code == 128 + signal.SIGINT:
            raise KeyboardInterrupt
        if code:
            raise RunFailed(self.plan.path, code)
        return {step.name: step for step in self.plan.select(only)}

    def __str__(self) -> str:
        return table(self.plan, self.steps)
