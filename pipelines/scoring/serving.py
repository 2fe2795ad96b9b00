"""The reward server as a process: its socket, its signals, and uvicorn."""

from __future__ import annotations

import signal
import socket

import uvicorn

from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.scoring import server
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
            config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, server_header=False)
            uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # of the signals
        return
    except RecipeError as error:
        raise document.locate(error) from error.__cause__


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the port, before anything slow, but does not listen yet. Raises OSError when it is taken."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        raise OSError(f"{host}:{port}: {error.strerror or error} (port=0 takes any that is free)") from None
    return bound
