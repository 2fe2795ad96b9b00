"""The reward server as a process: its socket, its signals, and uvicorn."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys

import uvicorn
from fastapi import FastAPI

from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.scoring import connections, server
from trimtab.pipelines.scoring.server_settings import Server


def serve(document: Document) -> None:
    """Serves the reward that the document configures, until a signal ends it.

    Raises RecipeError for a mistake in it, with its place; RewardFailure where the reward does not score the warm-up
    pair; OSError where the port is taken.
    """
    # while the reward is loading, and again after uvicorn has answered everything: it raises the signal once more then
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        checked = schema.check(Server, document.values)
        settings, block = schema.instance(Server, checked), checked["reward"]
        with bind(settings.host, settings.port) as listener:
            app = server.app(settings, block)
            listener.listen(2048)
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            print(f"serving {block['kind']} on http://{host}:{listener.getsockname()[1]}/get_reward", flush=True)
            try:
                running(settings, app).run(sockets=[listener])
            finally:
                _end(settings, app)
    except KeyboardInterrupt:  # of the signals
        return
    except RecipeError as error:
        raise document.locate(error) from error.__cause__


def running(settings: Server, app: FastAPI) -> uvicorn.Server:
    """The server of an application, within its limits."""
    silent = {"log_config": None, "log_level": "critical", "access_log": False, "server_header": False}
    limits = {"http": connections.protocol(settings), "timeout_graceful_shutdown": math.ceil(settings.stop_timeout)}
    return uvicorn.Server(uvicorn.Config(app, **silent, **limits))


def _end(settings: Server, app: FastAPI) -> None:
    """Ends the process, with 1, where the reward is still at work: Python would wait for its thread for ever."""
    if app.state.batcher.is_scoring:
        print(f"error: the reward had no answer within {settings.stop_timeout:g} s of the signal", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the port, before anything slow, but does not listen yet. Raises OSError when it is taken."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        raise OSError(f"{host}:{port}: {error.strerror or error} (port=0 takes any that is free)") from None
    return bound
