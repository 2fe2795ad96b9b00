"""One POST of JSON that always ends: with a whole reply, or with a failure that says where it happened and why.

`Post` has a time limit for each request, which also a server that sends a byte now and then cannot stretch, one for
all retries together, and a limit on the size of a reply. Stages of a failure: `dns`, `tcp`, `http`, `schema`.
"""

from __future__ import annotations

import contextlib
import email.utils
import itertools
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import tenacity

from trimtab.rewards import RewardFailure, _clock, _foreign_json, describe, excerpt

BACKOFF = 1.0  # seconds before the second try; doubles with every further one, up to 30
logger = logging.getLogger(__name__)
T = TypeVar("T")


class PostFailure(RewardFailure):
    """No reply to use.

    `stage` is where it failed, `retry` whether another try can help and `wait` for how many seconds the server wants
    to be left alone; `down` says that no URL could even be connected to, after all tries.
    """

    def __init__(self, reason: str, *, stage: str = "http", retry: bool = False, wait: float = 0.0):
        super().__init__(reason)
        self.stage, self.retry, self.wait, self.down = stage, retry, wait, False


class Post:
    """Times in seconds. Used as a context manager, by any number of threads. `token` is never in a message."""

    def __init__(
        self,
        *,
        connect_timeout: float,
        timeout: float,
        tries: int,
        deadline: float,
        max_response_mb: float,
        token: str | None = None,
    ):
        self._connect_timeout, self._timeout, self._tries, self._deadline = connect_timeout, timeout, tries, deadline
        self._megabytes, self._token = max_response_mb, token
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers["Accept-Encoding"] = "identity"  # nothing that unpacks to more than the limit
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # A connection per request: none has gone stale while the policy was training, and `_Limit` sees each one open.
        self._client = httpx.Client(headers=headers, limits=httpx.Limits(max_keepalive_connections=0))
        self._stopped = threading.Event()
        self._open: set[_Limit] = set()

    def __enter__(self) -> Post:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def stop(self) -> None:
        """Ends every request and every wait for a retry, now."""
        self._stopped.set()
        for limit in list(self._open):
            limit.reach()

    def __call__(self, urls: Sequence[str], body: Any, parse: Callable[[Any], T]) -> tuple[str, T]:
        """The URL that answered, for a message, and `parse(its JSON)`; try n goes to the n-th URL, round and round.

        `parse` raises ValueError for a reply that is not what was asked for. Raises PostFailure.
        """
        clock = _clock.clock
        began = clock.now()
        end = began + self._deadline
        targets, stages, content = itertools.cycle(urls), {}, json.dumps(body).encode()

        def once() -> tuple[str, T]:
            url = next(targets)
            try:
                return shown(url), self._once(url, content, parse, min(self._timeout, end - clock.now()))
            except PostFailure as failure:
                stages[url] = failure.stage
                raise

        def is_over(state: tenacity.RetryCallState) -> bool:
            too_late = clock.now() + state.upcoming_sleep >= end
            return too_late or state.attempt_number >= self._tries or self._stopped.is_set()

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, PostFailure) and error.retry),
            stop=is_over,
            wait=_wait,
            sleep=lambda seconds: clock.wait(self._stopped, seconds),
            before_sleep=lambda state: logger.warning("%s; trying again", _failure_in(state)),
            reraise=True,
        )
        try:
            return retrying(once)
        except PostFailure as failure:
            if failure.retry:
                number = retrying.statistics["attempt_number"]
                tries = "1 try" if number == 1 else f"{number} tries"
                failure.reason += f" (gave up after {tries} in {clock.now() - began:.1f} s)"
            failure.down = all(stages.get(url) in ("dns", "tcp") for url in urls)
            raise

    def _once(self, url: str, body: bytes, parse: Callable[[Any], T], seconds: float) -> T:
        seconds = max(seconds, 0.01)
        limits = httpx.Timeout(seconds, connect=min(self._connect_timeout, seconds))
        limit = _Limit(seconds)
        traced = {"trace": limit.trace}
        self._open.add(limit)
        if self._stopped.is_set():
            limit.reach()
        try:
            with limit, self._client.stream("POST", url, content=body, timeout=limits, extensions=traced) as response:
                content = self._read(url, response)
        except httpx.TransportError as error:
            if not limit.reached:
                raise self._lost(url, error, seconds) from None
        finally:
            self._open.discard(limit)
        if limit.reached:  # even if no error came of it: a reply without a length looks whole when it is cut
            raise self._failure(url, f"no whole reply within {seconds:.3g} s", retry=True)
        if not response.is_success:
            raise self._refused(url, response, content)
        try:
            # an integer may have more digits than a float has range
            answer = _foreign_json.read(content, parse_int=float)
        except (ValueError, RecursionError):
            raise self._failure(url, f"the reply is not JSON: {self._excerpt(content)}", stage="schema") from None
        try:
            return parse(answer)
        except ValueError as error:
            said = f"not the expected reply, {error}: {self._excerpt(content)}"
            raise self._failure(url, said, stage="schema") from None

    def _read(self, url: str, response: httpx.Response) -> bytes:
        """The body; of an error its beginning. Raises PostFailure for one that is too large."""
        content = bytearray()
        for chunk in response.iter_raw():
            content += chunk
            if not response.is_success and len(content) > 2000:
                break
            if len(content) > self._megabytes * 1e6:
                said = f"the reply is larger than {self._megabytes:g} MB (max_response_mb): {self._excerpt(content)}"
                raise self._failure(url, said)
        return bytes(content)

    def _lost(self, url: str, error: httpx.TransportError, seconds: float) -> PostFailure:
        """The failure of a request that got no reply."""
        if isinstance(error, httpx.ConnectTimeout):
            seconds = min(self._connect_timeout, seconds)
            return self._failure(url, f"no connection within {seconds:.3g} s", stage="tcp", retry=True)
        if isinstance(error, httpx.TimeoutException):
            return self._failure(url, f"no whole reply within {seconds:.3g} s", retry=True)
        cause: BaseException | None = error
        while cause and not isinstance(cause, socket.gaierror | ssl.SSLCertVerificationError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, ssl.SSLError):
            return self._failure(url, describe(error))
        stage = "dns" if cause else "tcp" if isinstance(error, httpx.ConnectError) else "http"
        return self._failure(url, describe(error), stage=stage, retry=True)

    def _refused(self, url: str, response: httpx.Response, content: bytes) -> PostFailure:
        """The failure of a request that was answered with another status than success."""
        status = response.status_code
        if response.is_redirect:
            target = shown(response.headers.get("location", "nowhere"))
            return self._failure(url, f"status {status} points to {target}, and redirects are not followed")
        wait = _seconds(response.headers.get("retry-after", ""))
        wanted = f", to be tried again after {wait:.3g} s" if wait else ""
        cure = " (is the bearer token right? see token_env)" if status in (401, 403) else ""
        retry = status >= 500 or status in (408, 425, 429)
        return self._failure(url, f"status {status}{cure}{wanted}: {self._excerpt(content)}", retry=retry, wait=wait)

    def _failure(self, url: str, said: str, *, stage: str = "http", **how: Any) -> PostFailure:
        return PostFailure(self._masked(f"{shown(url)}: {stage}: {said}"), stage=stage, **how)

    def _excerpt(self, content: bytes | bytearray) -> str:
        return repr(excerpt(self._masked(content[:2000].decode(errors="replace")), 120))

    def _masked(self, said: str) -> str:
        return said.replace(self._token, "(redacted)") if self._token else said


class _Limit:
    """Cuts the connection of a request after `seconds`. The timeouts of httpx begin anew with every byte."""

    def __init__(self, seconds: float):
        self.reached, self._seconds = False, seconds
        self._stream: Any = None

    def __enter__(self) -> None:
        self._timer = _clock.clock.after(self._seconds, self.reach)

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """httpx's `trace` extension: keeps the connection when it opens."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._stream = info["return_value"]
            if self.reached:
                self.reach()

    def reach(self) -> None:
        self.reached = True
        if self._stream is not None:
            with contextlib.suppress(OSError):  # it has just closed by itself
                self._stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def shown(url: str) -> str:
    """A URL as it may stand in a message: without its query, where keys are put."""
    return url.partition("?")[0]


def _wait(state: tenacity.RetryCallState) -> float:
    """The growing wait or the server's own, and then some, so that not all requests come back in the same moment."""
    backoff, jitter = tenacity.wait_exponential(multiplier=BACKOFF, max=30), tenacity.wait_random(0, BACKOFF)
    failure = _failure_in(state)
    asked = failure.wait if isinstance(failure, PostFailure) else 0.0
    return max(backoff(state), asked) + jitter(state)


def _failure_in(state: tenacity.RetryCallState) -> BaseException | None:
    """What the last try has raised."""
    return state.outcome.exception() if state.outcome else None


def _seconds(retry_after: str) -> float:
    """The header's seconds, or those until its date; 0 for neither."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        date = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
