"""Reward kind `remote`: a server's scores, over HTTP.

The server is OpenRLHF's or one that speaks like it, LLaMA-Factory's, or vLLM's (`/classify`, `/pooling`, `/score`).

    rewards:
      helpful: {kind: remote, url: "http://rm-host:5000/get_reward", tokenizer: $helpful}
      careful: {kind: remote, protocol: vllm_classify, url: ["http://a:8000/classify", "http://b:8000/classify"],
                model: my-org/reward-model}
"""

from __future__ import annotations

import functools
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from trimtab.rewards import Outcome, RewardFailure, _asking, _clock, _wire, describe, excerpt, score, settled
from trimtab.rewards._rendering import rows_of

if TYPE_CHECKING:
    from trimtab.rewards._http import Post


@dataclass(kw_only=True)
class Remote:
    """What the server at `url` says of each completion, as it says it; its null is an abstention.

    `url` is the whole address of the endpoint. Of several, each batch has its turn, and a retry goes to the next one.
    `tokenizer` is the reward model's, whose chat template renders conversations and which knows the special tokens;
    without it text is sent as it is. `label` is the column that goes along as OpenRLHF's `labels`. `concurrency`
    counts the requests at a time of one process. `token_env` is the environment variable with the bearer token.

    Seconds: `connect_timeout` for a connection, `timeout` for a whole request from its start, `deadline` for a batch
    of `batch_size` completions with all its `tries`. Tried again, with growing waits or the server's Retry-After: 5xx,
    408, 425, 429, timeouts and broken connections, and nothing else.

    Raises PartlyScored: a batch without a usable reply fails as a whole, a score that is no finite number fails its
    completion. When no server can be connected to, the batches that have not begun fail with the first one's reason.
    Raises ValueError for a label's missing column, and for conversations that neither side can render.
    """

    url: str | list[str]
    protocol: _wire.Protocol = "openrlhf"
    model: str | None = None
    tokenizer: str | None = None
    label: str | None = None
    batch_size: int = 32
    concurrency: int = 8
    connect_timeout: float = 5
    timeout: float = 60
    tries: int = 5
    deadline: float = 300
    max_response_mb: float = 16
    token_env: str = "REWARD_TOKEN"

    # how the server is asked, not what it says
    neutral: ClassVar[tuple[str, ...]] = (*_asking.LIMITS, "concurrency", "token_env")

    @staticmethod
    def small(block: dict[str, Any], miniature: Any) -> dict[str, Any]:
        """Of a shrunk run, which has no server."""
        return {"kind": "length", "target": 5, "unit": "characters"}

    def __post_init__(self) -> None:
        self._urls = [self.url] if isinstance(self.url, str) else list(self.url)
        if not self._urls:
            raise ValueError("remote: url is an empty list")
        for url in self._urls:
            self._check(url)
        self.waits: list[float] = []  # the seconds from each batch to its reply, with all tries of it
        self._turn = int(os.environ.get("RANK", 0))  # so that the processes do not all begin with the first server
        _asking.require_positive(self, "batch_size", "concurrency")
        if self.protocol.startswith("vllm") and not self.model:
            raise ValueError(f"remote: {self.protocol} needs `model`, the name under which the server has the model")

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        if not completions:
            return []
        rows = self._rows(prompts, completions, columns)
        # Like lengths together, or the server pads; the longest first, so that the last to be done is a short one.
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].whole), reverse=True)
        size = self.batch_size if all(row.messages is None for row in rows) else 1
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        first, self._turn = self._turn, self._turn + len(batches)
        outcomes: list[Outcome] = [None] * len(rows)
        logs: dict[str, list[Any]] = {}
        down: list[str] = []  # why no server can be connected to, once that is known
        with _asking.post(self) as post, ThreadPoolExecutor(self.concurrency) as pool:
            try:
                parts = pool.map(
                    lambda n: self._score(post, down, first + n, [rows[i] for i in batches[n]]), range(len(batches))
                )
                for batch, (scored, extras) in zip(batches, parts, strict=True):
                    for name in extras:
                        logs.setdefault(name, [None] * len(rows))
                    for place, i in enumerate(batch):
                        outcomes[i] = scored[place]
                        for name, values in extras.items():
                            logs[name][i] = values[place]
            except BaseException:  # such as Ctrl-C, which shall not wait for a deadline
                pool.shutdown(wait=False, cancel_futures=True)
                post.stop()
                raise
        if "log_extra" in columns:
            for name, values in logs.items():
                columns["log_extra"](name, values)
        return settled(outcomes)

    def probe(self, seconds: float = 10) -> Iterator[tuple[str, bool, str]]:
        """Whether each URL can be used: (stage, ok, detail) of the stages "url", "dns", "tcp", "http" and "schema".

        The last two come of scoring one short text, without a retry. A URL's first failing stage is its last. Takes
        `seconds` at most, of which each URL has its share.
        """
        for url in self._urls:
            end = _clock.clock.now() + seconds / len(self._urls)
            host = urlsplit(url).hostname or ""
            port = urlsplit(url).port or (443 if url.startswith("https") else 80)
            yield "url", True, url.partition("?")[0]
            stage = "dns"
            try:
                addresses = _addresses(host, port, end)
                yield stage, True, ", ".join(addresses)
                stage = "tcp"
                yield stage, True, f"connected to {_connect(addresses, port, end)}, port {port}"
                stage = "http"
                began, left = _clock.clock.now(), _left(end)
                row = _wire.render(self.protocol, "Say hello.", " Hello.")
                with _asking.post(self, timeout=left, deadline=left, tries=1) as post:
                    _, ([value], _) = post([url], *self._exchange([row]))
                yield stage, True, f"replied in {_clock.clock.now() - began:.2f} s"
                stage = "schema"
                outcome = score(value)
                if isinstance(outcome, RewardFailure):
                    raise outcome
                yield stage, True, "it abstains" if outcome is None else f"score {outcome}"
            except (OSError, ValueError, RewardFailure) as error:
                if getattr(error, "stage", None) == "schema":
                    yield stage, True, "replied"
                    stage = "schema"
                yield stage, False, error.reason if isinstance(error, RewardFailure) else describe(error)

    def _score(self, post: Post, down: list[str], turn: int, rows: list[_wire.Row]) -> tuple[list[Outcome], dict]:
        """The outcomes of one batch, and the columns to log."""
        if down:
            return [RewardFailure(down[0])] * len(rows), {}
        first, began = turn % len(self._urls), _clock.clock.now()
        try:
            url, (values, extras) = post(self._urls[first:] + self._urls[:first], *self._exchange(rows))
        except RewardFailure as failure:
            if getattr(failure, "down", False):
                down.append(failure.reason)
            return [RewardFailure(failure.reason)] * len(rows), {}
        self.waits.append(_clock.clock.now() - began)
        return [_of_server(url, score(value)) for value in values], extras

    def _exchange(self, rows: list[_wire.Row]) -> tuple[dict[str, Any], Any]:
        """The body of a request, and what reads its reply."""
        body = _wire.request(self.protocol, self.model, rows)
        return body, functools.partial(_wire.reply, self.protocol, count=len(rows))

    def _rows(self, prompts: list, completions: list, columns: dict[str, Any]) -> list[_wire.Row]:
        if self.label is not None and self.label not in columns:
            raise ValueError(f"remote: label: there is no column {self.label!r} (but {', '.join(sorted(columns))})")
        labels = [""] * len(completions) if self.label is None else columns[self.label]
        told = zip(labels, rows_of(columns, len(completions)), strict=True)
        return [
            _wire.render(self.protocol, prompt, completion, self._tokenizer, label, row)
            for prompt, completion, (label, row) in zip(prompts, completions, told, strict=True)
        ]

    @functools.cached_property
    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            return None
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.tokenizer)

    def _check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
        except ValueError:  # a port that is none
            good = False
        if good and (parts.username or parts.password):
            raise ValueError(
                f"remote: a URL must not hold credentials: the bearer token comes from ${self.token_env} (token_env)"
            )
        if not good or not url.isprintable() or " " in url or url.count("://") > 1:
            shown = excerpt(url.partition("?")[0])
            raise ValueError(f"remote: expected one http(s) URL, such as http://host:5000/get_reward, got {shown!r}")


def _left(end: float) -> float:
    return max(end - _clock.clock.now(), 0.01)


def _of_server(url: str, outcome: Outcome) -> Outcome:
    """The outcome, with the server's address in front of a failure's reason."""
    return outcome.reworded(f"{url}: {outcome.reason}") if isinstance(outcome, RewardFailure) else outcome


def _addresses(host: str, port: int, end: float) -> list[str]:
    """The addresses of a host. Raises OSError, and after `end` TimeoutError."""
    answer: Future = Future()

    def resolve() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=resolve, daemon=True).start()  # getaddrinfo itself takes as long as it takes
    return list(dict.fromkeys(address[4][0] for address in answer.result(_left(end))))


def _connect(addresses: list[str], port: int, end: float) -> str:
    """The first address that takes a connection. Raises OSError."""
    for n, address in enumerate(addresses, 1):
        try:
            socket.create_connection((address, port), _left(end) / (len(addresses) - n + 1)).close()
            return address
        except OSError as error:
            if n == len(addresses):
                raise OSError(f"{address}, port {port}: {describe(error)}") from None
    raise OSError("no address")
