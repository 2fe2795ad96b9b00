"""Reward kind `verl_function`: a `compute_score` written for verl, as it is.

rewards: {right: {kind: verl_function, path: my_reward.py, ground_truth: answer, data_source: openai/gsm8k}}
"""

import copy
import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trimtab.rewards import Outcome, RewardFailure, resolve, score, text
from trimtab.rewards._function import attempts, column, load, must_take, settle

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NAMES = ("data_source", "solution_str", "ground_truth", "extra_info")


@dataclass(kw_only=True)
class VerlFunction:
    """Calls the function at `path` (default name `compute_score`), sync or async, in the form that it is written in:

    - `(data_source, solution_str, ground_truth, extra_info)`, or those of them that it takes, by keyword;
    - two other names, which get the solution and the ground truth by position;
    - `(data_sources, solution_strs, ground_truths, extra_infos)`: all completions in one call.

    `kwargs` (verl's `reward_kwargs`) take precedence. `ground_truth` is a column; without it the ground truth is that
    of the row's `reward_model`, else the column `ground_truth`. `data_source` stands in for a missing column.
    A completion's result is a number, None to abstain, or a dict with `score`; the other numbers are logged, `acc`
    for a bare one. A row that raises fails alone. Raises ValueError for a function that cannot be found or called,
    and when there is no ground truth.
    """

    path: str
    ground_truth: str | None = None
    data_source: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)

    names_code: ClassVar[tuple[str, ...]] = ("path",)  # whose source is a part of what it says
    code_name: ClassVar[str] = "compute_score"  # of a function that the path does not name
    code_takes: ClassVar[tuple[str, ...]] = (
        "solution_str",
        "solution_strs",
        "ground_truth",
        "ground_truths",
    )  # the parameters by which its functions are known

    def __post_init__(self) -> None:
        self._function = load("verl_function", self.path, self.code_name)
        parameters = inspect.signature(self._function).parameters
        self._suffix = "s" if "solution_strs" in parameters else ""  # the batch form has every name in the plural
        required = {p.name for p in parameters.values() if p.default is p.empty and p.kind in POSITIONAL}
        required -= set(self.kwargs)
        other_names = len(required) == 2 and not required & {*NAMES, "solution_strs", "ground_truths"}
        self._positional = NAMES[1:3] if other_names else ()
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        takes = [n for n in NAMES if takes_any or n + self._suffix in parameters]
        self._keywords = [n for n in takes if n not in self._positional and n + self._suffix not in self.kwargs]
        keywords = dict.fromkeys(name + self._suffix for name in self._keywords)
        must_take("verl_function", self.path, self._function, *self._positional, **keywords, **self.kwargs)
        if "solution_str" not in (*self._positional, *self._keywords):
            raise ValueError(
                f"verl_function: {self.path} takes ({', '.join(parameters)}); expected (data_source, solution_str, "
                "ground_truth, extra_info), the same in the plural, or two parameters: the solution and the truth"
            )

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        values = {
            "data_source": columns.get("data_source") or [self.data_source] * len(completions),
            "solution_str": [text(completion) for completion in completions],
            # Copies: rows of one prompt share the object, and verl's functions may write into theirs.
            "extra_info": [copy.deepcopy(i) or {} for i in columns.get("extra_info") or [None] * len(completions)],
        }
        if "ground_truth" in (*self._positional, *self._keywords):
            values["ground_truth"] = self._truths(columns)
        if self._suffix:
            results = list(resolve(self._function(**{f"{n}s": values[n] for n in self._keywords}, **self.kwargs)))
            if len(results) != len(completions):
                raise ValueError(f"the function returned {len(results)} scores for {len(completions)} completions")
        else:
            results = attempts(functools.partial(self._score, values, i) for i in range(len(completions)))
        return settle([_read(result) for result in results], columns.get("log_extra"))

    def _score(self, values: dict[str, list], i: int) -> Any:
        positional = [values[name][i] for name in self._positional]
        return self._function(*positional, **{name: values[name][i] for name in self._keywords}, **self.kwargs)

    def _truths(self, columns: dict[str, Any]) -> list:
        if self.ground_truth is not None or "reward_model" not in columns:
            return column("verl_function", columns, self.ground_truth or "ground_truth")
        for i, row in enumerate(columns["reward_model"]):
            if "ground_truth" not in (row or {}):
                raise ValueError(
                    f"verl_function: `reward_model` of row {i} has no 'ground_truth' "
                    "(name the column that holds it: `ground_truth: COLUMN`)"
                )
        return [row["ground_truth"] for row in columns["reward_model"]]


def _read(result: Any) -> tuple[Outcome, dict[str, Any]]:
    """What one completion's result means, and what to log of it."""
    if isinstance(result, RewardFailure):
        return result, {}
    if not isinstance(result, Mapping):
        return score(result), {"acc": result}
    if "score" not in result:
        return RewardFailure(
            f"the function returned no 'score', but {', '.join(map(str, result)) or 'an empty dict'}"
        ), {}
    return score(result["score"]), {name: value for name, value in result.items() if name != "score"}
