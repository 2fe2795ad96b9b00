"""Servers for the reward `remote` with a clock of their own, and reward functions out of their source."""

import contextlib
import importlib.util
import itertools
import textwrap

import pytest
from reward_servers import HandClock, Server

from trimtab.pipelines.planning import schema
from trimtab.rewards import _clock


@pytest.fixture
def clock(monkeypatch):
    """The clock of all requests, which stands at 0 until a server or a wait lets time pass."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("REWARD_TOKEN", raising=False)
    clock = HandClock()
    monkeypatch.setattr(_clock, "clock", clock)
    return clock


@pytest.fixture
def serve(clock):
    """Starts servers, each with its steps; they are closed after the test."""
    with contextlib.ExitStack() as stack:

        def serve(*steps):
            server = Server(*steps, clock=clock)
            stack.callback(server.close)
            return server

        yield serve


@pytest.fixture
def from_source(tmp_path):
    """Writes a function's source into a file; returns the reward that runs it and the function itself."""
    names = map("functions_{}.py".format, itertools.count())

    def from_source(kind, source, name=None, **options):
        file = tmp_path / next(names)
        file.write_text(textwrap.dedent(source))
        path = f"{file}:{name}" if name else str(file)
        spec = importlib.util.spec_from_file_location("by_hand", file)
        spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
        default = {"openrlhf_function": "reward_func", "verl_function": "compute_score"}.get(kind)
        return schema.load_reward({"kind": kind, "path": path, **options}), getattr(module, name or default)

    return from_source
