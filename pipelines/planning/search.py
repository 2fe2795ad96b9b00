"""A search over what a recipe sweeps: the points are trials, whose values Optuna chooses one after the other.

    sweep: {stages.dpo.train.beta: {low: 0.01, high: 1, log: true}, seed: [1, 2, 3]}
    search: {metric: evaluate/dpo/gold/mean, direction: maximize, trials: 20, sampler: tpe, seed: 0}

Trials stand in Optuna's own journal in the recipe's folder, under a name that says what is searched: the space, the
metric and the steps of the recipe itself. So every process comes to the same plan, and a changed recipe begins anew.
What a trial tries depends on the seed, its number and the trials before it, so a search that was killed goes on as if
it had not been. Optuna is imported only where there is a journal, or a trial to choose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab.pipelines.planning import points, schema
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.files import fingerprint
from trimtab.pipelines.planning.points import Axis, Change, Choice, Entry

JOURNAL = "search.journal"
RANGE = ("low", "high", "log", "step")


@dataclass(frozen=True, kw_only=True)
class Search:
    """The keys of `search`. `metric` is the name of a step, and of a number in its metrics, behind a slash."""

    metric: str
    trials: int
    direction: Literal["maximize", "minimize"] = "maximize"
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = 0
    on_failure: Literal["stop", "skip"] = "stop"

    @classmethod
    def read(cls, document: Document) -> Search | None:
        """What a recipe says, None where it says nothing. Raises RecipeError."""
        block = document.values.get("search")
        if block is None:
            return None
        if not isinstance(block, dict):
            raise RecipeError(f"expected a mapping, got {block!r}", ("search",))
        known = [field.name for field in dataclasses.fields(cls)]
        for key in block:
            if key not in known:
                raise RecipeError(f"unknown key for a search{suggest(key, known)}", ("search", str(key)))
        if document.values.get("arms"):
            raise RecipeError("chooses the points itself: leave out `arms`, or the search", ("search",))
        search: Search = schema.as_written(cls, block, ("search",))
        if search.trials < 1:
            raise RecipeError(f"must be at least 1, got {search.trials}", ("search", "trials"))
        if "/" not in search.metric:
            raise RecipeError("names no metric of a step, as in evaluate/dpo/gold/mean", ("search", "metric"))
        return search


@dataclass(frozen=True)
class Study:
    """The trials of a search: those in the journal under a name, and the next one."""

    search: Search
    space: Sequence[Entry]
    folder: Path
    name: str

    @classmethod
    def of(cls, search: Search, space: Sequence[Entry], folder: Path, keys: Mapping[str, str]) -> Study:
        """The study of a recipe whose own steps have these keys. Raises RecipeError for a space that is none."""
        for entry in space:
            _check(entry)
        if not space:
            raise RecipeError("has nothing to choose: give `sweep` a path that is no seed", ("search",))
        what = dataclasses.asdict(search) | {"trials": None, "on_failure": None}
        identity = {"search": what, "space": [[entry.path, entry.values] for entry in space], "steps": dict(keys)}
        return cls(search, space, folder, fingerprint(identity))

    def axis(self) -> Axis | None:
        """The trials that were begun and have not failed, as an axis of the plan; None before the first."""
        if not (self.folder / JOURNAL).exists():
            return None
        begun = [trial for trial in self.trials() if trial.state.name != "FAIL"]
        choices = [Choice(f"trial-{trial.number}", self.changes(trial)) for trial in begun]
        return Axis(("search",), tuple(choices)) if choices else None

    def changes(self, trial: Any) -> tuple[Change, ...]:
        """The values of a trial."""
        changes = []
        for entry in self.space:
            given = trial.params[entry.dotted]
            value = entry.values[given] if isinstance(entry.values, list) else given
            changes.append(Change(entry.path, value, entry.place))
        return tuple(changes)

    def trials(self) -> list[Any]:
        """All trials that were begun, as Optuna's FrozenTrial."""
        return list(self._open().get_trials(deepcopy=False))

    def next(self) -> Any:
        """The trial that was begun and not ended, or a new one; None where there are as many as there should be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        trials = self.trials()
        for trial in trials:
            if trial.state.name == "RUNNING":
                return trial
        if len(trials) >= self.search.trials:
            return None
        number = self._open(len(trials)).ask(self._distributions()).number
        return self.trials()[number]

    def tell(self, trial: Any, value: float | None) -> None:
        """Ends a trial with the value of the metric, or as failed."""
        from optuna.trial import TrialState

        self._open().tell(trial.number, value, TrialState.FAIL if value is None else None)

    @property
    def ended(self) -> int:
        """How many trials have ended, well or not."""
        return sum(trial.state.is_finished() for trial in self.trials())

    def best(self) -> Any:
        """The best trial, None where none has ended well."""
        ended = [trial for trial in self.trials() if trial.state.name == "COMPLETE"]
        choose = max if self.search.direction == "maximize" else min
        return choose(ended, key=lambda trial: trial.value, default=None)

    def _open(self, number: int = 0) -> Any:
        """Optuna's study; `number` is that of the trial to be chosen, which has a seed of its own."""
        optuna = _optuna()
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(self.folder / JOURNAL))
        )
        seed = int(fingerprint([self.search.seed, number]), 16)
        random = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[self.search.sampler]
        return optuna.create_study(
            storage=storage,
            study_name=self.name,
            direction=self.search.direction,
            sampler=random(seed=seed),
            load_if_exists=True,
        )

    def _distributions(self) -> dict[str, Any]:
        from optuna import distributions

        chosen: dict[str, Any] = {}
        for entry in self.space:
            if isinstance(entry.values, list):
                chosen[entry.dotted] = distributions.CategoricalDistribution(list(range(len(entry.values))))
            else:
                whole = all(isinstance(entry.values.get(key, 1), int) for key in ("low", "high", "step"))
                kind = distributions.IntDistribution if whole else distributions.FloatDistribution
                chosen[entry.dotted] = kind(**entry.values)
        return chosen


def is_range(values: Any) -> bool:
    """Whether values are written as `{low: ..., high: ...}`, of which only a search can choose some."""
    return isinstance(values, dict) and {"low", "high"} <= set(values)


def _check(entry: Entry) -> None:
    if not is_range(entry.values):
        points.swept("", entry.path, entry.place, entry.values)  # a list of different values
        return
    for key, value in entry.values.items():
        if key not in RANGE:
            raise RecipeError(f"unknown key for a range{suggest(key, RANGE)}", (*entry.place, str(key)))
        if key == "log" and not isinstance(value, bool):
            raise RecipeError(f"expected true or false, got {value!r}", entry.place)
        if key != "log" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise RecipeError(f"expected a number, got {value!r}", entry.place)
    low, high = entry.values["low"], entry.values["high"]
    if not low < high:
        raise RecipeError(f"low must be below high, got {low} and {high}", entry.place)
    if entry.values.get("log") and (low <= 0 or "step" in entry.values):
        raise RecipeError("`log` takes a low above 0, and no step", entry.place)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise RecipeError(f"a search needs Optuna ({error}): pip install trimtab[optuna]", ("search",)) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
