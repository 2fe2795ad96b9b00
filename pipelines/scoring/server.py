"""A reward behind OpenRLHF's HTTP contract.

POST /get_reward (or /) takes {"query": [...], "prompts": [...], "labels": [...]}, the last two optional, and answers
{"rewards": [...], "scores": [...], "extra_logs": {name: [...]}}: a number per query, null where the reward abstains,
and the numbers that it logs through `log_extra`. The completion is what follows the prompt in its query; where the
query does not begin with the prompt, the prompt is "" and the completion all of it. The reward also gets the columns
`labels` and `queries`, the full texts as they came. When it fails on a query the answer is 500 and {"error": ...},
never a made-up number; 401, 408, 413 and 422 say what is wrong with the request, and 503 asks to come back. GET
/health needs no token; GET /metadata tells what is served. SIGTERM and Ctrl-C end the server with exit code 0, after
every whole request in it has its answer.

    openrlhf: --reward.remote_url http://127.0.0.1:5000/get_reward
    with a token, which OpenRLHF can only send so: http://any:TOKEN@host:5000/get_reward
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import logging
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import pydantic
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording.tracking import redact
from trimtab.pipelines.scoring import connections, server_settings
from trimtab.pipelines.scoring.batching import Batcher, Row
from trimtab.pipelines.scoring.server_settings import Server
from trimtab.rewards import RewardFailure, describe

logger = logging.getLogger(__name__)


class Call(pydantic.BaseModel):
    """The body of a request. Old clients send `query` alone."""

    query: list[str]
    prompts: list[str] | None = None
    labels: list[Any] | None = None

    @pydantic.model_validator(mode="after")
    def _check_lengths(self) -> Call:
        for key in ("prompts", "labels"):
            values = getattr(self, key)
            if values is not None and len(values) != len(self.query):
                raise ValueError(f"{len(self.query)} query but {len(values)} {key}")
        return self

    def rows(self, special: re.Pattern | None = None) -> list[Row]:
        """Prompt and completion of every query, without what `special` matches."""
        rows = []
        for index, query in enumerate(self.query):
            whole, prompt = query, self.prompts[index] if self.prompts else ""
            if special:  # before they are compared: tokenizing may have put a token in front of the query alone
                whole, prompt = special.sub("", whole), special.sub("", prompt)
            if not whole.startswith(prompt):
                prompt = ""
            label = self.labels[index] if self.labels else None
            completion = whole.removeprefix(prompt)
            rows.append(Row(index=index, query=query, prompt=prompt, completion=completion, label=label))
        return rows


def app(server: Server, block: Mapping[str, Any]) -> FastAPI:
    """The application that serves the reward of `block`.

    Raises RecipeError when the tokenizer cannot be loaded, and RewardFailure when the reward does not score the
    warm-up pair.
    """
    special = special_tokens(server.tokenizer)
    batcher = Batcher(server.reward, block["kind"], batch_size=server.batch_size, max_wait=server.max_wait)
    pair = server.warm_up
    call = Call(query=[pair.prompt + pair.completion], prompts=[pair.prompt], labels=[pair.label])
    batcher.call(first := call.rows())
    if isinstance(first[0].outcome, RewardFailure):
        raise first[0].outcome

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI):
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()

    async def authorise(request: Request) -> None:
        if server.token and not hmac.compare_digest(_sent(request), server.token.encode()):
            raise HTTPException(401, "send the token: `Authorization: Bearer ...`", {"WWW-Authenticate": "Bearer"})

    api = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    api.state.batcher = batcher
    secured = [Depends(authorise)]

    @api.exception_handler(AnyHTTPException)
    async def error(_: Request, problem: AnyHTTPException) -> JSONResponse:
        return JSONResponse({"error": problem.detail}, problem.status_code, problem.headers)

    @api.post("/", dependencies=secured)
    @api.post("/get_reward", dependencies=secured)
    async def get_reward(request: Request) -> dict[str, Any]:
        try:
            body = await connections.body(request, server)
        except TimeoutError:
            late = f"the body was not there within {server.body_timeout:g} s"
            raise HTTPException(408, late, {"Connection": "close"}) from None
        except ValueError as problem:
            raise HTTPException(413, str(problem)) from None
        except ClientDisconnect:
            raise HTTPException(499, "the client hung up") from None
        try:
            call = Call.model_validate_json(body)
        except pydantic.ValidationError as problem:
            raise HTTPException(422, _first(problem)) from None
        if len(call.query) > server.max_completions:
            raise HTTPException(413, f"{len(call.query)} completions: the limit is {server.max_completions}")
        if not call.query:  # of a client with more servers than completions
            return {"rewards": [], "scores": [], "extra_logs": {}}
        rows = call.rows(special)
        done = await batcher.submit(rows)
        leaving = asyncio.create_task(_hung_up(request))
        await asyncio.wait((done, leaving), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not done.done():  # its client will ask again: to score this, too, would put off everyone
            done.cancel()
            raise HTTPException(499, "the client hung up")
        if failure := done.exception():
            logger.warning("%s", failure)
            raise HTTPException(500, str(failure))
        scores = [row.outcome for row in rows]
        columns = dict.fromkeys(column for row in rows for column, value in row.logs.items() if value is not None)
        logs = {column: [row.logs.get(column) for row in rows] for column in columns}
        return {"rewards": scores, "scores": scores, "extra_logs": logs}

    @api.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/metadata", dependencies=secured)
    async def about() -> dict[str, Any]:
        limits = (*server_settings.POSITIVE, "max_wait")
        return {
            "kind": block["kind"],
            "options": redact({key: value for key, value in block.items() if key != "kind"}),
            "tokenizer": server.tokenizer,
            "limits": {key: getattr(server, key) for key in limits},
            "versions": {"python": platform.python_version(), **_versions("trimtab", "torch", "transformers", "trl")},
        }

    return api


def special_tokens(tokenizer: str | None) -> re.Pattern | None:
    """A pattern of the special tokens of a tokenizer, a folder or a name on the Hub; None for None."""
    if tokenizer is None:
        return None
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        raise RecipeError(describe(error), ("tokenizer",)) from None
    added = {token.content for token in loaded.added_tokens_decoder.values() if token.special}
    tokens = sorted(added | set(loaded.all_special_tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, tokens))) if tokens else None


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _sent(request: Request) -> bytes:
    """The token that came with a request.

    OpenRLHF sends no header of its own, but what stands in its URL: http://any:TOKEN@host:5000/get_reward arrives as
    a basic password.
    """
    scheme, _, sent = request.headers.get("authorization", "").encode("latin-1").partition(b" ")
    if scheme.lower() != b"basic":
        return sent.strip() if scheme.lower() == b"bearer" else b""
    try:
        return base64.b64decode(sent).partition(b":")[2]
    except binascii.Error:
        return b""


def _first(problem: pydantic.ValidationError) -> str:
    error = problem.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, error["loc"]))
    return ": ".join(part for part in (place, error["msg"].removeprefix("Value error, ")) if part)


def _versions(*packages: str) -> dict[str, str]:
    installed = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return installed
