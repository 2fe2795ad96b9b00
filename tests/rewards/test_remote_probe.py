"""How `--check-rewards` reaches a server: stage by stage, in the time that it has."""

import socket
import threading

import pytest
from reward_servers import closed_port, drip, fine, reason, remote, says, score, silence

from trimtab.rewards import _clock

pytestmark = pytest.mark.usefixtures("clock")


def probe(reward, seconds=10):
    began = _clock.clock.now()
    answers = list(reward.probe(seconds))
    assert _clock.clock.now() - began <= seconds
    return [(stage, ok) for stage, ok, _ in answers], answers[-1][2]


def test_probe_of_a_good_server(serve):
    server = serve(fine)
    stages, detail = probe(remote([server.url, server.url]))
    assert stages == [(stage, True) for stage in ("url", "dns", "tcp", "http", "schema")] * 2
    assert detail == "score 17.0"
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("fault", "stage", "said"),
    [
        (says({}, 500), "http", "status 500"),
        (says({}, 404), "http", "status 404"),
        (silence, "http", "no whole reply within"),
        (drip, "http", "no whole reply within"),
        (says({"score": 1}), "schema", "no 'rewards' in it"),
        (says(b"<html>"), "schema", "the reply is not JSON"),
        (says(b'{"rewards": [NaN]}'), "schema", "the score is nan"),
    ],
    ids=["500", "404", "silence", "drip", "key", "html", "nan"],
)
def test_probe_names_the_stage(serve, fault, stage, said):
    server = serve(fault)
    stages, detail = probe(remote(server.url))
    passed = ["url", "dns", "tcp", "http", "schema"]
    assert stages == [(name, True) for name in passed[: passed.index(stage)]] + [(stage, False)]
    assert said in detail
    assert len(server.seen) == 1


def test_probe_of_a_refused_connection_and_of_an_unknown_host(serve, monkeypatch):
    server = serve(fine)
    real, is_over = socket.getaddrinfo, threading.Event()

    def lookup(host, *args, **options):
        if host == "slow.invalid":
            is_over.wait()
        if host.endswith(".invalid"):
            raise socket.gaierror(-2, "Name or service not known")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    stages, _ = probe(remote([f"http://127.0.0.1:{closed_port()}/x", server.url]))
    assert stages[:3] == [("url", True), ("dns", True), ("tcp", False)]
    assert stages[3:] == [(stage, True) for stage in ("url", "dns", "tcp", "http", "schema")]
    stages, detail = probe(remote("http://gone.invalid/x"))
    assert stages == [("url", True), ("dns", False)]
    assert "Name or service not known" in detail
    assert probe(remote("http://slow.invalid/x"), 0.2)[0] == [("url", True), ("dns", False)]
    is_over.set()
    why = reason(score(remote("http://gone.invalid/x")))
    assert why.startswith("http://gone.invalid/x: dns: ConnectError: [Errno -2] Name or service not known")
