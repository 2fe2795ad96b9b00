"""Reward servers that misbehave by script, and a clock whose seconds pass when such a server says so."""

import contextlib
import json
import os
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

from trimtab.rewards import _clock, outcomes
from trimtab.rewards.remote import Remote

PROMPTS = ["p"] * 4
COMPLETIONS = ["a", "bbb", "cc", "dddd"]
SCORES = [2.0, 4.0, 3.0, 5.0]  # the honest server's: the number of characters of prompt and completion
CHAT = [{"role": "user", "content": "hi"}]


class HandClock(_clock.Clock):
    """Stands still but for `advance`, and for whoever waits: a busy machine is as quick by it as a quiet one."""

    def __init__(self):
        self._now, self._timers, self._lock = 0.0, [], threading.RLock()

    def now(self):
        return self._now

    def after(self, seconds, action):
        timer = (self._now + seconds, action)
        with self._lock:
            self._timers.append(timer)
        return SimpleNamespace(cancel=lambda: self._forget(timer))

    def wait(self, event, seconds):
        if not event.is_set():
            self.advance(seconds)

    def advance(self, seconds):
        """Lets time pass; whether something was due in it, and so has happened."""
        with self._lock:
            self._now += seconds
            due = [timer for timer in self._timers if timer[0] <= self._now]
            for timer in due:
                self._forget(timer)
                timer[1]()
        return bool(due)

    def advance_to_next(self):
        """Lets the time pass until something is due."""
        with self._lock:
            self.advance(min(when for when, _ in self._timers) - self._now)

    def _forget(self, timer):
        with self._lock:
            if timer in self._timers:
                self._timers.remove(timer)


class Server(ThreadingHTTPServer):
    """Answers request n with step n, and all further ones with the last. Keeps each one's (path, headers, body)."""

    daemon_threads, block_on_close = True, False

    def __init__(self, *steps, clock=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.steps, self.seen, self.closing, self.lock = steps, [], threading.Event(), threading.Lock()
        self.clock = clock
        self.url = f"http://127.0.0.1:{self.server_port}/get_reward"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def handle_error(self, *about):
        """A client that has left is what several tests are about."""

    def close(self):
        self.closing.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            step = self.server.steps[min(len(self.server.seen), len(self.server.steps) - 1)]
            self.server.seen.append((self.path, dict(self.headers), body))
        step(self, body)

    def reply(self, content, status=200, headers=()):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *about):
        pass


# what a server does with a request


def fine(handler, body):
    handler.reply({"rewards": [len(query) for query in body["query"]]})


def says(content, status=200, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, body: handler.reply(content, status, headers)


def drip(handler, body):
    """A byte every half second, for an hour, and each of them resets a timeout between bytes."""
    handler.send_response(200)
    handler.end_headers()
    _drip(handler, b" ")


def drip_headers(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _drip(handler, b"x")


def _drip(handler, byte):
    for _ in range(7200):
        handler.wfile.write(byte)
        if handler.server.clock.advance(0.5):
            return


def silence(handler, body):
    """Nothing, until the client has waited as long as it wants to."""
    handler.server.clock.advance_to_next()


def endless_drip(handler, body):
    """A byte every 20 ms of the machine's time, until the test is over."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(b" ")


def endless_silence(handler, body):
    handler.server.closing.wait()


def flood(handler, body):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(50):
        handler.wfile.write(b"[" * 1_000_000)


def reset(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())


# a client of theirs


def remote(url, **options):
    options = {"connect_timeout": 60, "timeout": 60, "tries": 3, "deadline": 300, "batch_size": 4} | options
    return Remote(url=url, **options)


def score(reward, prompts=PROMPTS, completions=COMPLETIONS, **columns):
    """The outcomes, which are there before the deadline of a batch has passed."""
    began = _clock.clock.now()
    answers = outcomes(reward, prompts, completions, **columns)
    assert _clock.clock.now() - began <= reward.deadline
    return answers


def reason(answers):
    """The reason that all outcomes share; a score among them is an error."""
    (shared,) = {outcome.reason for outcome in answers}
    return shared


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def sampled_at(folder, answer, tokens):
    """How a policy is sampled that a server speaks for: the keys of `sample`. `answer` is a function of the prompt.

    `folder` has its tokenizer, and `tokens` are of an answer at most.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    def reply(handler, body):
        asked = tokenizer.decode(list(map(int, body["prompt"])), skip_special_tokens=True)
        handler.reply({"choices": [{"text": answer(asked), "finish_reason": "stop"}]})

    server = Server(reply)
    urls = [server.url.replace("/get_reward", "/v1")]
    try:
        yield {
            "model": {"model_name_or_path": folder},
            "engine": "server",
            "server": {"urls": urls, "dialect": "openai"},
            "generate": {"max_new_tokens": tokens},
        }
    finally:
        server.close()
