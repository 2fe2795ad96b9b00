"""The servers that `sample` with `engine: server` asks, as a recipe names them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from trimtab.rewards import _asking


@dataclass(kw_only=True)
class Servers:
    """Servers of one model, which speak OpenAI's completions: vLLM's, or others with `dialect: openai`.

    `urls` are their base addresses (`http://host:8000/v1`); requests take turns, and one that has failed goes to the
    next. `model` is the name that they serve the policy by, by default its path. `settings` are further keys of a
    request. With `logprobs: policy` the ranks compute the log-probabilities of the answers themselves, and those that
    a server gives may differ by `tolerance` nats a token; with `logprobs: server` the server's are kept, and no model
    is loaded here. `reload` is a request that is sent to every server first, `route` and `body`, in which `{model}`
    stands for the policy's folder: by it servers take the policy of a round.

    `concurrency` counts the requests at a time of one rank. `token_env` is the environment variable with the bearer
    token. Seconds: `connect_timeout` for a connection, `timeout` for a request, `deadline` for one with its `tries`.
    """

    urls: list[str]
    model: str | None = None
    dialect: Literal["vllm", "openai"] = "vllm"
    settings: dict[str, Any] = field(default_factory=dict)
    logprobs: Literal["policy", "server"] = "policy"
    tolerance: float | None = 0.1
    reload: dict[str, Any] | None = None
    concurrency: int = 64
    connect_timeout: float = 5
    timeout: float = 600
    tries: int = 5
    deadline: float = 1800
    max_response_mb: float = 16
    token_env: str = "SAMPLING_TOKEN"

    # how and where they are asked, not what they say
    neutral: ClassVar[tuple[str, ...]] = (
        *_asking.LIMITS,
        "concurrency",
        "urls",
        "model",
        "tolerance",
        "reload",
        "token_env",
    )

    def __post_init__(self) -> None:
        _asking.require_positive(self, "concurrency")
        if not self.urls:
            raise ValueError("urls: name at least one server")
        for url in self.urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"urls: expected a base address such as http://host:8000/v1, got {url[:100]!r}")
        if self.reload is not None and self.reload.keys() - {"body"} != {"route"}:
            raise ValueError("reload takes `route`, such as /collective_rpc, and `body`")
