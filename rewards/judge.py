"""Reward kind `judge`: what a language model that is asked for a verdict says of a completion.

    rewards:
      graded: {kind: judge, url: "http://host:8000/v1/chat/completions", model: Qwen/Qwen3-32B, rubric: "Correct?"}
      beats: {kind: judge, url: ..., model: ..., mode: pairwise, against: chosen}
      ranked: {kind: judge, url: ..., model: ..., mode: listwise}
      local: {kind: judge, model: Qwen/Qwen2.5-7B-Instruct}

The server is vLLM's, `transformers serve`, or any other that speaks OpenAI's chat completions. Without `url`, `model`
is a checkpoint that this process loads.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trimtab.rewards import Outcome, RewardFailure, _asking, excerpt, settled, text
from trimtab.rewards._chat import Endpoint, Local, Reply
from trimtab.rewards._judging import Mode, by_rank, grade, in_both_orders, order, preferred, template
from trimtab.rewards._wording import is_place, wording


@dataclass(kw_only=True)
class Judge:
    """A verdict on every completion, in one of three modes:

    - `pointwise`: a grade on `scale`
    - `pairwise`: 1, 0.5 or 0 for a win, a tie or a loss against the answer in the column `against`, asked in both
      orders. A verdict that flips with the order is a tie. The logs `flipped` and `tied` count them, and
      `preferred_first` and `longer_wins` how often the judge preferred whatever came first, and the longer of two
      answers of different lengths: 0.5 for a judge without such a bias
    - `listwise`: the completions of a prompt that come in one call, ranked: 1 for the best, 0 for the worst. One that
      is alone has no score

    `rubric` says what to judge by. `template` is the whole question in Jinja, instead of the one that is built in: it
    names `completion`, or `first` and `second`, or `completions`, and may name `prompt`, `rubric`, `low`, `high` and
    `reference`, the value of the column `reference`. Both may be files, or stages that leave a text (`rubric: $tune`).
    A pointwise judge logs what it says as `reply`. The reply ends with a line `Verdict: ...`. `settings` are further
    keys of a request, such as `chat_template_kwargs`. `budget` is the tokens that all requests of a process may take.

    Raises PartlyScored: a reply without a verdict, or with one outside the scale, fails its completion, and so does no
    reply. Times in seconds and tries are as in the reward `remote`. Raises ValueError for a missing column.
    """

    model: str
    url: str | None = None
    mode: Mode = "pointwise"
    rubric: str = "Is the answer correct, helpful, clear, and no longer than it has to be?"
    template: str | None = None
    scale: list[float] = field(default_factory=lambda: [1, 10])
    against: str | None = None
    reference: str | None = None
    max_tokens: int = 512
    settings: dict[str, Any] = field(default_factory=lambda: {"temperature": 0})
    budget: int | None = None
    concurrency: int = 8
    connect_timeout: float = 5
    timeout: float = 120
    tries: int = 5
    deadline: float = 600
    max_response_mb: float = 4
    token_env: str = "JUDGE_TOKEN"

    # how the judge is asked, not what it says
    neutral: ClassVar[tuple[str, ...]] = (*_asking.LIMITS, "budget", "concurrency", "token_env", "url")

    # what the report shows of the log of pairs, and its titles there
    logs: ClassVar[dict[str, str]] = {
        "flipped": "Flips with the order",
        "tied": "Ties, flips among them",
        "preferred_first": "First place preferred",
        "longer_wins": "Longer answer wins",
    }

    @staticmethod
    def small(block: dict[str, Any], miniature: Any) -> dict[str, Any]:
        """Of a shrunk run, which has no server and no model that can judge."""
        if block.get("mode") == "pairwise":  # whose score is a win or a loss
            return {"kind": "pattern", "regex": "a"}
        return {"kind": "length", "target": 5, "unit": "characters"}

    def __post_init__(self) -> None:
        _asking.require_positive(self, "max_tokens", "concurrency")
        if len(self.scale) != 2 or not self.scale[0] < self.scale[1]:
            raise ValueError(f"judge: scale must be [lowest, highest], got {self.scale}")
        if (self.mode == "pairwise") != (self.against is not None):
            raise ValueError("judge: `mode: pairwise` and `against`, the column with the other answer, go together")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"judge: url must be the whole address of the endpoint, got {excerpt(self.url)!r}")
        if self.template is None or not is_place(self.template):
            self._asks  # noqa: B018  # a template that is written out is looked at now
        self._endpoint: Endpoint | None = None

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        if not completions:
            return []
        for name in (self.against, self.reference):
            if name is not None and name not in columns:
                raise ValueError(f"judge: the data has no column {name!r} (it has: {', '.join(columns)})")
        asked, answers = [text(prompt) for prompt in prompts], [text(completion) for completion in completions]
        references = columns[self.reference] if self.reference else [None] * len(answers)
        cases = [
            {"prompt": prompt, "reference": None if reference is None else text(reference)}
            for prompt, reference in zip(asked, references, strict=True)
        ]
        if self.mode == "pointwise":
            outcomes, log = self._graded(cases, answers)
        elif self.mode == "listwise":
            outcomes, log = self._ranked(cases, answers), {}
        else:
            outcomes, log = self._compared(cases, answers, columns[self.against or ""])
        for name, values in log.items() if "log_extra" in columns else ():
            columns["log_extra"](name, values)
        return settled(outcomes)

    def _graded(self, cases: list[dict], answers: list[str]) -> tuple[list[Outcome], dict]:
        """The outcomes of a pointwise judge, and what it has said."""
        questions = [self._question(case, completion=answer) for case, answer in zip(cases, answers, strict=True)]
        replies = self._ask(questions)
        said = [reply if isinstance(reply, str) else None for reply in replies]
        return [_read(reply, grade, *self.scale) for reply in replies], {"reply": said}

    def _compared(self, cases: list[dict], answers: list[str], others: Sequence[Any]) -> tuple[list[Outcome], dict]:
        """The outcomes of a pairwise judge, and the columns to log; without another answer there is no score."""
        pairs = [
            (case, answer, text(other))
            for case, answer, other in zip(cases, answers, others, strict=True)
            if other is not None
        ]
        forward = [self._question(case, first=answer, second=other) for case, answer, other in pairs]
        backward = [self._question(case, first=other, second=answer) for case, answer, other in pairs]
        verdicts = [_read(reply, preferred) for reply in self._ask([*forward, *backward])]
        both = iter(zip(verdicts[: len(pairs)], verdicts[len(pairs) :], strict=True))
        outcomes: list[Outcome] = []
        log: dict[str, list[float | None]] = {name: [] for name in self.logs}
        for answer, other in zip(answers, others, strict=True):
            outcome, flipped, first = (None, None, None) if other is None else _settle_pair(*next(both))
            outcomes.append(outcome)
            score = outcome if isinstance(outcome, float) else None
            log["flipped"].append(flipped)
            log["tied"].append(None if score is None else float(score == 0.5))
            log["preferred_first"].append(first)
            gap = 0 if score is None else len(answer) - len(text(other))
            if score is None or not gap:
                log["longer_wins"].append(None)
            else:
                log["longer_wins"].append(score if gap > 0 else 1 - score)
        return outcomes, log

    def _ranked(self, cases: list[dict], answers: list[str]) -> list[Outcome]:
        groups: dict[str, list[int]] = {}
        for place, case in enumerate(cases):
            groups.setdefault(case["prompt"], []).append(place)
        several = [group for group in groups.values() if len(group) > 1]
        questions = [self._question(cases[group[0]], completions=[answers[i] for i in group]) for group in several]
        outcomes: list[Outcome] = [None] * len(answers)
        for group, reply in zip(several, self._ask(questions), strict=True):
            places = _read(reply, order, len(group))
            failed = isinstance(places, RewardFailure)
            scores: list[Outcome] = [places] * len(group) if failed else list(by_rank(places))
            for place, outcome in zip(group, scores, strict=True):
                outcomes[place] = outcome
        return outcomes

    def _question(self, case: dict[str, Any], **answers: Any) -> str:
        low, high = self.scale
        return self._asks.render(**case, **answers, rubric=self._rubric, low=f"{low:g}", high=f"{high:g}")

    def _ask(self, questions: list[str]) -> list[Reply]:
        if self.url is None:
            return self._local(questions)
        if self._endpoint is None:
            settings = {"model": self.model, "max_tokens": self.max_tokens, **self.settings}
            self._endpoint = Endpoint(self.url, settings, self.concurrency, self.budget)
        with _asking.post(self) as post:
            return self._endpoint(post, questions)

    @functools.cached_property
    def _asks(self) -> Any:
        return template(self.mode, None if self.template is None else wording(self.template))

    @functools.cached_property
    def _rubric(self) -> str:
        return wording(self.rubric)

    @functools.cached_property
    def _local(self) -> Local:
        return Local(self.model, self.max_tokens, self.concurrency)


def _read(reply: Reply, reader: Any, *arguments: Any) -> Any:
    """What a reply says, or why it says nothing, with its end."""
    if isinstance(reply, RewardFailure):
        return reply
    try:
        return reader(reply, *arguments)
    except ValueError as error:
        return RewardFailure(f"{error}: ...{excerpt(reply[-120:], 120)!r}")


def _settle_pair(forward: Any, backward: Any) -> tuple[Outcome, float | None, float | None]:
    """The outcome of two verdicts, whether they are a flip, and how often the first place was preferred."""
    for verdict in (forward, backward):
        if isinstance(verdict, RewardFailure):
            return verdict, None, None
    score, flipped = in_both_orders(forward, backward)
    places = {"a": 1.0, "b": 0.0, "tie": 0.5}
    return score, float(flipped), (places[forward] + places[backward]) / 2
