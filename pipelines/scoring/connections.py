"""The reward server's connections: how many there may be, and how long one may take to send its request.

uvicorn waits for a request for as long as its client keeps the connection open. So a client that sends half of one,
or a byte a minute, would hold a connection for ever, and the server's end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import h11
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from trimtab.pipelines.scoring.server_settings import Server

RETRY = {"Retry-After": "1", "Connection": "close"}


def protocol(settings: Server) -> type[H11Protocol]:
    """uvicorn's protocol of a connection, within the limits of `settings`."""

    class Limited(H11Protocol):
        """Is closed when its headers take too long, and when the server ends before its request is whole."""

        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                self.app = _busy(settings)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def shutdown(self) -> None:
            super().shutdown()
            if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
                self.transport.close()

        def _watch(self) -> None:
            """Begins to wait for headers, unless it does already; the application waits for a body."""
            if self.conn.their_state is not h11.IDLE:
                self._forget()
            elif self._late is None:
                self._late = self.loop.call_later(settings.body_timeout, self.transport.close)

        def _forget(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Limited


async def body(request: Request, settings: Server) -> bytes:
    """The body of a request. Raises TimeoutError where it is not whole in time, and ValueError where it is too large.

    A client that is still sending may not see an answer, so a little too much is read to its end.
    """
    limit = settings.max_body_mb * 2**20
    whole, size = bytearray(), 0
    async with asyncio.timeout(settings.body_timeout):
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                whole += chunk
            elif size > 4 * limit:
                break
    if size > limit:
        raise ValueError(f"the body is larger than {settings.max_body_mb:g} MiB")
    return bytes(whole)


def _busy(settings: Server) -> Any:
    """The application of a connection beyond the limit: it asks the client to come back."""

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(TimeoutError, ValueError, ClientDisconnect):
            await body(Request(scope, receive), settings)  # or its client may not see the answer
        error = f"{settings.max_connections} connections are open, which is the limit: ask again"
        await JSONResponse({"error": error}, 503, RETRY)(scope, receive, send)

    return busy
