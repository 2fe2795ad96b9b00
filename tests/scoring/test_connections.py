"""Clients that send half of a request, trickle, stay, or come all at once: on real sockets, with short deadlines."""

import contextlib
import json
import socket
import threading
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from launches import until

from trimtab.pipelines.scoring import server, serving
from trimtab.pipelines.scoring.server_settings import Server

HEAD = (
    b"POST /get_reward HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
BODY = json.dumps({"query": ["a b"]}).encode()
WHOLE = HEAD % len(BODY) + BODY
HALF = HEAD % 1000 + b'{"query": ["a'


def reward(prompts, completions, **columns):
    if completions == ["slow"]:
        time.sleep(0.5)
    return [float(len(completion)) for completion in completions]


@contextlib.contextmanager
def served(**limits):
    """A server in a thread, its address, and what is called to ask it to stop."""
    settings = Server(reward=reward, port=0, **limits)
    uvicorn = serving.running(settings, server.app(settings, {"kind": "mine"}))
    with serving.bind("127.0.0.1", 0) as listener:
        listener.listen(512)
        thread = threading.Thread(target=uvicorn.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until(lambda: uvicorn.started, 20)
        uvicorn.thread = thread
        yield listener.getsockname(), uvicorn
        uvicorn.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def connected(address, sent=b""):
    client = socket.create_connection(address, 10)
    client.sendall(sent)
    return client


def answer(client):
    """All that comes until the server closes."""
    said = b""
    with client, contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            said += part
    return said


@pytest.mark.parametrize("sent", [b"", b"POST /get_reward HTTP/1.1\r\nHost: a\r\nX: ", HALF])
def test_a_request_that_does_not_come_is_closed(sent):
    with served(body_timeout=0.3) as (address, _):
        started = time.monotonic()
        said = answer(connected(address, sent))
        assert 0.2 < time.monotonic() - started < 5
        assert (b"408" in said and b"the body was not there within 0.3 s" in said) == (sent == HALF)


def test_trickling_headers_do_not_prolong_it():
    with served(body_timeout=0.4) as (address, _):
        started = time.monotonic()
        client = connected(address, b"POST / HTTP/1.1\r\n")
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 5:
                client.sendall(b"X-Y: z\r\n")
                time.sleep(0.05)
        assert time.monotonic() - started < 3


def test_huge_headers_are_refused():
    with served() as (address, _):
        said = answer(connected(address, b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000))
        assert said.startswith(b"HTTP/1.1 400")


def test_connections_beyond_the_limit_are_asked_to_come_back():
    with served(max_connections=3, body_timeout=2) as (address, uvicorn):
        holding = [connected(address, HALF) for _ in range(3)]
        until(lambda: len(uvicorn.server_state.connections) == 3, 5)
        said = answer(connected(address, WHOLE)).lower()
        assert said.startswith(b"http/1.1 503")
        assert b"retry-after: 1" in said
        for client in holding:
            client.close()
        until(lambda: not uvicorn.server_state.connections, 5)
        assert b'"rewards":[3.0]' in answer(connected(address, WHOLE))


def test_a_stop_answers_what_is_whole_and_waits_for_nothing_half_sent():
    with served(body_timeout=60) as (address, uvicorn):
        halves = [connected(address, HALF) for _ in range(150)]
        slow = json.dumps({"query": ["slow"]}).encode()
        whole = connected(address, HEAD % len(slow) + slow)
        until(lambda: len(uvicorn.server_state.tasks) == 151, 10)
        started = time.monotonic()
        uvicorn.should_exit = True
        assert b'"rewards":[4.0]' in answer(whole)
        uvicorn.thread.join(10)
        assert time.monotonic() - started < 5
        for client in halves:
            client.close()
