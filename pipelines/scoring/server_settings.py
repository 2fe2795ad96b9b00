"""The keys of a reward server's YAML; docs/using-rewards.md shows them in a file."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from typing import Any

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.rewards import Reward

POSITIVE = ("max_body_mb", "max_completions", "body_timeout", "max_connections", "stop_timeout", "batch_size")


@dataclass(kw_only=True)
class WarmUp:
    """What the reward scores once before the port opens: a mistake shows then, and a model is loaded."""

    prompt: str = "What is 2 + 2?"
    completion: str = "4"
    label: Any = "4"


@dataclass(kw_only=True)
class Server:
    """What is served, where, to whom, and within which limits. Raises RecipeError for what cannot be served."""

    reward: Reward
    host: str = "127.0.0.1"
    port: int = 5000  # 0: any that is free
    token_env: str = "REWARD_TOKEN"  # the environment variable with the token that clients must send
    tokenizer: str | None = None  # whose special tokens are taken out of prompts and completions (not of queries)
    max_body_mb: float = 16.0  # MiB per request
    max_completions: int = 4096  # per request
    body_timeout: float = 30.0  # seconds for a request's headers to be there, and again for its body
    max_connections: int = 800  # open at a time; those beyond are answered 503 with Retry-After
    stop_timeout: float = 60.0  # seconds after SIGTERM or Ctrl-C for the requests that are whole to be answered
    batch_size: int = 64  # completions per call of the reward, merged from all requests that wait
    max_wait: float = 0.01  # seconds that a completion waits for others to fill its batch
    warm_up: WarmUp = field(default_factory=WarmUp)

    def __post_init__(self) -> None:
        for key in POSITIVE:
            if getattr(self, key) <= 0:
                raise RecipeError(f"must be above 0, got {getattr(self, key)}", (key,))
        if not 0 <= self.max_wait < 60:
            raise RecipeError(f"must be 0 or more, and less than 60 seconds, got {self.max_wait}", ("max_wait",))
        if not 0 <= self.port < 2**16:
            raise RecipeError(f"must be from 0 to 65535, got {self.port}", ("port",))
        if not self.token and not _is_loopback(self.host):
            raise RecipeError(
                f"{self.host} can be reached from other machines: set a token with `export {self.token_env}="
                "$(openssl rand -hex 32)`, or use host: 127.0.0.1",
                ("host",),
            )

    @property
    def token(self) -> str:
        """The token that clients must send, "" when there is none."""
        return os.environ.get(self.token_env, "").strip()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
