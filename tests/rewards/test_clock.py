"""The clock of requests, as it is where no test has put another one in its place."""

import threading

from trimtab.rewards import _clock


def test_it_waits_until_the_time_has_passed_or_the_event_is_set():
    clock, event = _clock.Clock(), threading.Event()
    began = clock.now()
    clock.wait(event, 0.05)
    assert clock.now() - began >= 0.05
    event.set()
    clock.wait(event, 600)


def test_it_calls_later_in_a_thread_that_keeps_no_process_alive():
    called = threading.Event()
    timer = _clock.Clock().after(0.0, called.set)
    assert timer.daemon
    assert called.wait(60)
