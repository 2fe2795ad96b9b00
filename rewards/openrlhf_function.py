"""Reward kind `openrlhf_function`: a `reward_func(queries, prompts, labels, **kwargs)` written for OpenRLHF, as it is.

rewards: {right: {kind: openrlhf_function, path: reward_func.py, tokenizer: $sft, label: answer}}
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trimtab.rewards import Outcome, RewardFailure, resolve, score, text
from trimtab.rewards._function import attempts, column, load, must_take, settle
from trimtab.rewards._rendering import conversation, rows_of
from trimtab.rewards._vocabulary import COLUMN, foreign


@dataclass(kw_only=True)
class OpenrlhfFunction:
    """Calls the function at `path` (default name `reward_func`) with `batch_size` completions at a time.

    `queries` are prompt and response as the policy reads and writes them, with its special tokens. `tokenizer` is the
    policy's: token ids are decoded with it, and without ids, or where their column `vocabulary` says that they are
    another tokenizer's, its chat template renders the prompt (with the row's `tools` and `chat_template_kwargs`) and
    its end-of-sequence token ends the response. `label` is the column that becomes `labels`, which are "" without it.

    The function returns B scores (a tensor, a list, or a number when B is 1) or a dict of `rewards`, `scores` and
    `extra_logs`; the rewards are the scores, the rest is logged per completion. A batch that raises or returns
    another number of items fails, and only it. Raises ValueError for a function that cannot be found or called, a
    missing label column, and chat prompts without a `tokenizer`.
    """

    path: str
    tokenizer: str | None = None
    label: str | None = None
    batch_size: int = 1
    kwargs: dict[str, Any] = field(default_factory=dict)

    names_code: ClassVar[tuple[str, ...]] = ("path",)  # whose source is a part of what it says
    code_name: ClassVar[str] = "reward_func"  # of a function that the path does not name
    code_takes: ClassVar[tuple[str, ...]] = ("queries", "labels")  # the parameters by which its functions are known

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"openrlhf_function: batch_size must be at least 1, got {self.batch_size}")
        self._function = load("openrlhf_function", self.path, self.code_name)
        must_take("openrlhf_function", self.path, self._function, [], [], [], **self.kwargs)

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        labels = column("openrlhf_function", columns, self.label) if self.label else [""] * len(prompts)
        unknown = [None] * len(prompts)
        ids = [list(columns.get(name) or unknown) for name in ("prompt_ids", "completion_ids")]
        for place in foreign(self._tokenizer, columns.get(COLUMN)) if self.tokenizer else ():
            ids[0][place] = ids[1][place] = None
        settings = rows_of(columns, len(prompts))
        texts = [self._texts(*row) for row in zip(prompts, completions, *ids, settings, strict=True)]
        rows = [(query, prompt, label) for (prompt, query), label in zip(texts, labels, strict=True)]
        batches = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]

        results: list[tuple[Outcome, dict[str, Any]]] = []
        attempted = attempts(functools.partial(self._score, batch) for batch in batches)
        for batch, scored in zip(batches, attempted, strict=True):
            results += [(scored, {})] * len(batch) if isinstance(scored, RewardFailure) else scored
        return settle(results, columns.get("log_extra"))

    def _score(self, batch: list[tuple[str, str, Any]]) -> list[tuple[Outcome, dict[str, Any]]]:
        """The outcome of every row, and what else the function said of it."""
        said = resolve(self._function(*map(list, zip(*batch, strict=True)), **self.kwargs))
        said = said if isinstance(said, Mapping) else {"rewards": said}
        if said.get("rewards") is None:  # 0.0 is a reward
            raise RewardFailure("the function returned no rewards")
        rewards = _items("rewards", said["rewards"], len(batch))
        logs = {"scores": said.get("scores"), **(said.get("extra_logs") or {})}
        logs = {name: _items(name, value, len(batch)) for name, value in logs.items() if value is not None}
        return [(score(rewards[i]), {name: values[i] for name, values in logs.items()}) for i in range(len(batch))]

    def _texts(
        self, prompt: Any, completion: Any, prompt_ids: Any, completion_ids: Any, row: dict[str, Any]
    ) -> tuple[str, str]:
        """The prompt and the query of one completion."""
        if self.tokenizer is None:
            if not isinstance(prompt, str):
                raise ValueError(
                    "openrlhf_function: the prompts are chat messages, and OpenRLHF's functions read them as the "
                    "policy does: set `tokenizer` to the policy, such as `tokenizer: $sft`"
                )
            return prompt, prompt + text(completion)
        tokenizer = self._tokenizer
        if prompt_ids is not None:
            prompt = tokenizer.decode(prompt_ids, skip_special_tokens=False)
        elif not isinstance(prompt, str):
            prompt = conversation(tokenizer, prompt, row, opened=True)
        if completion_ids is None:
            response, eos = text(completion), tokenizer.eos_token or ""
            return prompt, prompt + response + ("" if response.endswith(eos) else eos)
        if prompt_ids is None:
            prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return prompt, tokenizer.decode([*prompt_ids, *completion_ids], skip_special_tokens=False)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.tokenizer)


def _items(name: str, value: Any, count: int) -> list:
    """A tensor, a list or a number as one item per row. A number is repeated, but for a reward."""
    items = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(items, list | tuple):
        items = [items] * (1 if name == "rewards" else count)
    if len(items) != count:
        raise RewardFailure(f"the function returned {len(items)} {name} for {count} completions")
    return list(items)
