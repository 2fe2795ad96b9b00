"""Reward servers that misbehave by script, and a clock that a busy machine slows down as it slows the test."""

import json
import os
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCORES = [2.0, 4.0, 3.0, 5.0]  # the honest server's for the prompt "p" and these completions: the number of characters
COMPLETIONS = ["a", "bbb", "cc", "dddd"]


class Server(ThreadingHTTPServer):
    """Answers request n with step n, and all further ones with the last. Keeps each one's (path, headers, body)."""

    daemon_threads, block_on_close = True, False

    def __init__(self, *steps):
        super().__init__(("127.0.0.1", 0), Handler)
        self.steps, self.seen, self.closing, self.lock = steps, [], threading.Event(), threading.Lock()
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


def fine(handler, body):
    handler.reply({"rewards": [len(query) for query in body["query"]]})


def says(content, status=200, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, body: handler.reply(content, status, headers)


def drip(handler, body):
    """A byte every 50 ms, for ever, and each of them resets a timeout between bytes."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(b" ")


def drip_headers(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(b"x")


def silence(handler, body):
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


class Metronome:
    """Seconds that this process was able to observe, in ticks of 10 ms.

    Where other processes hold the machine, its ticks come late and are few: a limit in them is missed by what is
    tested, and not by its neighbours.
    """

    TICK = 0.01

    def __init__(self):
        self.ticks, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()

    def _beat(self):
        while not self._over.wait(self.TICK):
            self.ticks += 1

    @property
    def seconds(self):
        return self.ticks * self.TICK
