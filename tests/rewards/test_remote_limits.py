"""How long the reward `remote` takes at most, whatever the server does: limits of a request, of a batch, of a wait."""

import email.utils
import socket
import time

import pytest
from reward_servers import (
    SCORES,
    closed_port,
    drip,
    drip_headers,
    endless_drip,
    endless_silence,
    fine,
    reason,
    remote,
    says,
    score,
    silence,
)

from trimtab.rewards import _clock, outcomes

pytestmark = pytest.mark.usefixtures("clock")


@pytest.mark.parametrize("fault", [drip, drip_headers, silence])
def test_a_request_ends_with_its_timeout_and_the_next_begins_after_a_wait(serve, clock, fault):
    server = serve(fault)
    why = reason(score(remote(server.url, timeout=20)))
    assert "no whole reply within 20 s" in why
    assert len(server.seen) == 3
    assert 3 * 20 + 1 + 2 <= clock.now() <= 3 * 20 + 2 + 3  # the waits double, and there is up to a second more


def test_the_deadline_ends_the_tries(serve, clock):
    server = serve(silence)
    why = reason(score(remote(server.url, tries=100, timeout=25, deadline=70)))
    assert "no whole reply within" in why
    assert "gave up after 3 tries in 70.0 s" in why
    assert len(server.seen) == 3
    assert clock.now() == pytest.approx(70)


@pytest.mark.parametrize("after", ["90", lambda: email.utils.formatdate(time.time() + 3600, usegmt=True)])
def test_retry_after_is_honoured(serve, clock, after):
    server = serve(says({}, 429, Retry_After=after() if callable(after) else after), fine)
    reward = remote(server.url, deadline=9000)
    assert score(reward) == SCORES
    assert reward.waits == [clock.now()]
    assert 90 <= clock.now() <= 91 or 3000 < clock.now() <= 3601


def test_a_wait_longer_than_the_deadline_is_not_begun(serve, clock):
    server = serve(says({}, 429, Retry_After=3600))
    assert ", to be tried again after 3.6e+03 s" in reason(score(remote(server.url)))
    assert len(server.seen) == 1
    assert clock.now() == 0


@pytest.mark.parametrize("fault", [endless_drip, endless_silence])
def test_the_time_of_the_machine_ends_a_request_too(serve, monkeypatch, fault):
    monkeypatch.setattr(_clock, "clock", _clock.Clock())
    reward = remote(serve(fault).url, timeout=0.2, tries=1)
    began = time.monotonic()
    why = reason(outcomes(reward, ["p"], ["c"]))
    assert "no whole reply within 0.2 s (gave up after 1 try in " in why
    assert time.monotonic() - began >= 0.2


def test_a_connection_that_nobody_takes_ends_too():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.create_connection(full.getsockname()) for _ in range(1)]
        reward = remote(f"http://127.0.0.1:{full.getsockname()[1]}/x", connect_timeout=0.2, tries=1)
        assert ": tcp: no connection within 0.2 s (gave up after 1 try" in reason(outcomes(reward, ["p"], ["c"]))
        waiting[0].close()


def test_a_refused_connection_is_tried_again_and_then_fails():
    port = closed_port()
    why = reason(score(remote(f"http://127.0.0.1:{port}/x")))
    assert why.startswith(f"http://127.0.0.1:{port}/x: tcp: ConnectError: [Errno 111] Connection refused (gave up ")
    assert "after 3 tries" in why


def test_a_dead_server_ends_the_call_at_its_first_batches(clock):
    reward = remote(f"http://127.0.0.1:{closed_port()}/x", batch_size=1, concurrency=2)
    failures = score(reward, ["p"] * 50, ["c"] * 50)
    assert len(failures) == 50
    assert all("Connection refused" in failure.reason for failure in failures)
    assert clock.now() <= 2 * (2 + 3)  # the waits of the two batches that had begun


def test_an_error_ends_the_requests_that_are_under_way(serve, clock):
    """As Ctrl-C does; here the longest completion's label cannot be sent, and the other requests are not answered."""
    reward = remote(serve(endless_silence).url, label="answer", batch_size=1)
    why = reason(score(reward, answer=["one", "two", "three", {4}]))
    assert why.startswith("TypeError: Object of type set is not JSON serializable (rewards/remote.py:")
    assert clock.now() == 0
