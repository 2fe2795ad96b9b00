"""The language model that is asked for better texts, as a recipe names it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trimtab.pipelines.planning.field_types import ModelName
from trimtab.rewards import RewardFailure, _asking


@dataclass(kw_only=True)
class Reflector:
    """A server with OpenAI's chat completions at `url`, or without one the checkpoint or stage `model`, loaded here.

    `settings` are further keys of a request, or of transformers' generation. `token_env` is the environment variable
    with the bearer token. Times in seconds are as in the reward `remote`.
    """

    model: ModelName
    url: str | None = None
    max_tokens: int = 2048
    settings: dict[str, Any] = field(default_factory=lambda: {"temperature": 1.0})
    connect_timeout: float = 5
    timeout: float = 300
    tries: int = 5
    deadline: float = 900
    max_response_mb: float = 4
    token_env: str = "REFLECTOR_TOKEN"

    # how and where it is asked, not what it says
    neutral: ClassVar[tuple[str, ...]] = (*_asking.LIMITS, "token_env", "url")

    def __post_init__(self) -> None:
        _asking.require_positive(self, "max_tokens")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must be the whole address of the endpoint, got {self.url[:100]!r}")

    def __call__(self, question: str) -> str:
        """Its reply. Raises RewardFailure where there is none."""
        if self.url is None:
            (reply,) = self._local([question])
        else:
            with _asking.post(self) as post:
                (reply,) = self._endpoint(post, [question])
        if isinstance(reply, RewardFailure):
            raise reply
        return reply

    @functools.cached_property
    def _endpoint(self) -> Any:
        from trimtab.rewards._chat import Endpoint

        settings = {"model": self.model, "max_tokens": self.max_tokens, **self.settings}
        return Endpoint(self.url or "", settings, 1, None)

    @functools.cached_property
    def _local(self) -> Any:
        from trimtab.rewards._chat import Local

        return Local(self.model, self.max_tokens, 1, self.settings)
