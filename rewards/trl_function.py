"""Reward kind `trl_function`: a reward function written for TRL's GRPO or RLOO trainer, as it is.

rewards: {right: {kind: trl_function, path: my_rewards.py:accuracy, kwargs: {partial_credit: 0.5}}}
"""

import inspect
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trimtab.rewards import resolve
from trimtab.rewards._function import column, load, must_take


@dataclass(kw_only=True)
class TrlFunction:
    """Calls the function at `path` as TRL does: by keyword, with every dataset column, and sync or async.

    `kwargs` are further keywords, which take precedence over columns. Without a trainer, `trainer_state` is a fresh
    `TrainerState`, `log_extra` and `log_metric` do nothing, and `completion_ids` is None. Raises ValueError for a
    function that cannot be found or does not take TRL's keywords, and for one that needs a column which is missing.
    """

    path: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    names_code: ClassVar[tuple[str, ...]] = ("path",)  # whose source is a part of what it says
    code_takes: ClassVar[tuple[str, ...]] = ("completions",)  # the parameters by which its functions are known

    def __post_init__(self) -> None:
        self._function = load("trl_function", self.path)
        self.__name__ = getattr(self._function, "__name__", type(self._function).__name__)  # TRL's name for its logs
        self._required = [
            name
            for name, parameter in inspect.signature(self._function).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        always = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
        keywords = dict.fromkeys([*always, *self._required]) | self.kwargs
        must_take("trl_function", self.path, self._function, **keywords)

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        given = {"prompts": prompts, "completions": completions, "completion_ids": None, **columns, **self.kwargs}
        if given.get("trainer_state") is None:
            from transformers import TrainerState

            given["trainer_state"] = TrainerState()
        given["log_extra"] = given.get("log_extra") or _nothing
        given["log_metric"] = given.get("log_metric") or _nothing
        for name in self._required:
            column("trl_function", given, name)
        return resolve(self._function(**given))


def _nothing(name: str, value: Any) -> None:
    """What is logged outside a trainer."""
