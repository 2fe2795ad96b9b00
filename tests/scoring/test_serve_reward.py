"""The reward server: a real process over HTTP, and how its batcher merges requests."""

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT

from trimtab.pipelines.planning import schema
from trimtab.rewards import RewardFailure

requests = pytest.importorskip("requests")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

TOKEN = "correct-horse-battery"
PAIRS = [("Say a. ", "a b c"), ("Say b. ", ""), ("Say c. ", "a a a a a a a")]

# Scores the number of words, but for some words that make it misbehave.
TEAM = """
import time

seen = 0

def words(prompts, completions, queries, labels, log_extra, **columns):
    global seen
    seen += len(completions)
    log_extra("seen", [seen] * len(completions))
    log_extra("batch", [len(completions)] * len(completions))
    log_extra("label", labels)
    log_extra("note", ["for people"] * len(completions))
    if any("raise" in completion for completion in completions):
        raise RuntimeError("cannot read it with hf_abcdefghijklmn")
    if any("sleep" in completion for completion in completions):
        time.sleep(1.5)
    special = {"none": None, "nan": float("nan"), "big": 10**9}
    return [special.get(c.split()[0] if c else "", float(len(c.split()))) for c in completions]
"""


class Running:
    """A server process, from its start until it says that it is ready."""

    def __init__(self, folder, config, environment=None):
        (folder / "team.py").write_text(TEAM)
        (folder / "server.yaml").write_text(config)
        command = [sys.executable, str(ROOT / "scripts" / "serve_reward.py"), "--config", "server.yaml", "port=0"]
        clean = {key: value for key, value in os.environ.items() if key != "REWARD_TOKEN"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=clean | (environment or {}), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.line = self.process.stdout.readline()
        self.url = self.line.split(" on ")[-1].strip()

    def post(self, query, headers=None, path="/get_reward", **more):
        return requests.post(self.root + path, json={"query": query, **more}, headers=headers, timeout=30)

    @property
    def root(self):
        return self.url.removesuffix("/get_reward")

    def stop(self, number=signal.SIGTERM):
        """Ends it; its exit code and what it wrote to stderr."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def open_server(tmp_path_factory):
    server = Running(
        tmp_path_factory.mktemp("open"), "reward: {kind: team.words}\nmax_body_mb: 0.1\nmax_completions: 9"
    )
    yield server
    server.process.kill()
    server.process.communicate()


@pytest.fixture(scope="module")
def secured_server(tmp_path_factory):
    """A nested reward, a token and a tokenizer."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("secured")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")),
        bos_token="<s>", eos_token="<|end|>", additional_special_tokens=["<|user|>", "<|user|>x"],
    )  # fmt: skip
    tokenizer.save_pretrained(folder / "tokenizer")
    config = f"""
        reward:
          kind: composite
          rewards:
            brief: {{kind: length, target: 3}}
            stop: {{kind: pattern, regex: '<[|]end[|]>'}}
        token_env: SECRET_OF_THE_TEST
        tokenizer: {folder}/tokenizer
    """
    server = Running(folder, config, {"SECRET_OF_THE_TEST": f"{TOKEN}\n"})
    yield server
    server.process.kill()
    server.process.communicate()


def test_it_says_where_it_listens(open_server):
    assert re.fullmatch(r"serving team.words on http://127\.0\.0\.1:[1-9]\d*/get_reward\n", open_server.line)
    health = requests.get(open_server.root + "/health", timeout=10)
    assert (health.status_code, health.json()) == (200, {"status": "ok"})


def test_metadata(open_server):
    about = requests.get(open_server.root + "/metadata", timeout=10).json()
    assert (about["kind"], about["options"], about["tokenizer"]) == ("team.words", {}, None)
    assert about["limits"] == {"max_body_mb": 0.1, "max_completions": 9, "batch_size": 64, "max_wait": 0.01,
                               "body_timeout": 30, "max_connections": 800, "stop_timeout": 60}  # fmt: skip
    assert about["versions"]["python"].startswith("3.")


@pytest.mark.parametrize("path", ["/", "/get_reward"])
def test_scores_are_those_of_the_local_reward(secured_server, path):
    prompts, completions = map(list, zip(*PAIRS, strict=True))
    queries = [prompt + completion for prompt, completion in PAIRS]
    answer = secured_server.post(queries, {"Authorization": f"Bearer {TOKEN}"}, path, prompts=prompts).json()
    local = schema.load_reward({"kind": "length", "target": 3})(prompts=prompts, completions=completions)
    assert answer["rewards"] == answer["scores"] == local == [0.0, -1.0, pytest.approx(-4 / 3)]
    assert answer["extra_logs"] == {"brief": local, "stop": [0.0, 0.0, 0.0]}


def test_special_tokens_are_taken_out_but_of_queries(secured_server):
    query = "<s><|user|>Say a.<|user|>x a b c<|end|>"  # the first token is not in the prompt
    answer = secured_server.post([query], {"Authorization": f"Bearer {TOKEN}"}, prompts=["<|user|>Say a."]).json()
    assert answer["extra_logs"] == {"brief": [0.0], "stop": [0.0]}


def test_labels_and_whole_queries_reach_the_reward(open_server):
    answer = open_server.post(["Q: a b", "R: c"], prompts=["Q:", "other"], labels=[1.5, "text"]).json()
    assert answer["rewards"] == [2.0, 2.0]  # "R: c" does not start with its prompt
    seen = answer["extra_logs"].pop("seen")
    assert seen[0] == seen[1] >= 3  # the warm-up among them
    assert answer["extra_logs"] == {"batch": [2.0, 2.0], "label": [1.5, None]}  # numbers only


def test_an_old_client_sends_queries_alone(open_server):
    assert open_server.post(["a b c", ""]).json()["rewards"] == [3.0, 0.0]
    assert open_server.post(["a"], prompts=None, labels=None, metas=[{}]).json()["rewards"] == [1.0]


def test_empty_lists(open_server):
    assert open_server.post([], prompts=[], labels=[]).json() == {"rewards": [], "scores": [], "extra_logs": {}}


def test_abstention_is_null(open_server):
    answer = open_server.post(["none", "a b"]).json()
    assert answer["rewards"] == answer["scores"] == [None, 2.0]


def test_openrlhf_client(open_server):
    """Its documented loop, one completion per request from many at once, while one of them fails."""
    tries = []

    def request_api_wrapper(data, try_max_times=5):
        for _ in range(try_max_times):
            try:
                response = requests.post(open_server.url, json=data, timeout=180)
                tries.append(data["query"])
                response.raise_for_status()
                return response.json()
            except requests.RequestException:
                time.sleep(0.05)  # 1 second there
        raise RuntimeError("Request error for 5 times")

    def ask(n):
        query = ["raise"] if n == 7 else ["a " * n]
        try:
            return request_api_wrapper({"query": query, "prompts": [""], "labels": [str(n)]})
        except RuntimeError:
            return None

    with ThreadPoolExecutor(24) as clients:
        answers = list(clients.map(ask, range(48)))
    assert answers.pop(7) is None
    assert [answer["rewards"] for answer in answers] == [[float(n)] for n in range(48) if n != 7]
    assert tries.count(["raise"]) == 5
    assert len(tries) == 47 + 5  # nobody else had to try again
    assert max(answer["extra_logs"]["batch"][0] for answer in answers) > 1
    assert request_api_wrapper({"query": [], "prompts": [], "labels": []})["rewards"] == []


def test_a_failure_is_an_error_and_no_number(open_server):
    answer = open_server.post(["a", "nan"])
    assert answer.status_code == 500
    assert answer.json() == {"error": "reward 'team.words' failed on completion 1 ('nan'): the score is nan"}
    raised = open_server.post(["raise sk-0123456789"])
    assert raised.status_code == 500
    assert "RuntimeError: cannot read it with (redacted) (team.py:14, in words; " in raised.json()["error"]
    assert "0123456789" not in raised.text


def test_token(secured_server):
    def status(value):
        return secured_server.post(["a"], {"Authorization": value} if value else None).status_code

    assert status(f"Bearer {TOKEN}") == status(f"bearer {TOKEN}") == 200
    for wrong in (
        None,
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        TOKEN,
        "Basic",
        "Basic !",
        "é",
    ):
        assert status(wrong and wrong.encode("latin-1")) == 401, wrong
    assert status("Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode()) == 200
    in_url = secured_server.url.replace("//", f"//any:{TOKEN}@")
    assert requests.post(in_url, json={"query": ["a"]}, timeout=10).status_code == 200
    assert requests.post(in_url.replace(TOKEN, "other"), json={"query": ["a"]}, timeout=10).status_code == 401
    assert requests.get(secured_server.root + "/metadata", timeout=10).status_code == 401
    assert requests.get(secured_server.root + "/health", timeout=10).status_code == 200
    refused = secured_server.post(["a"])
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer" in refused.json()["error"]


def test_limits(open_server):
    assert open_server.post(["a"] * 9).status_code == 200
    rows = open_server.post(["a"] * 10)
    assert (rows.status_code, rows.json()["error"]) == (413, "10 completions: the limit is 9")
    large = open_server.post(["a" * 150_000])
    assert (large.status_code, large.json()["error"]) == (413, "the body is larger than 0.1 MiB")

    def chunks():  # of no announced length
        yield b'{"query": ["'
        for _ in range(3):
            yield b"a" * 50_000
        yield b'"]}'

    assert requests.post(open_server.url, data=chunks(), timeout=10).status_code == 413


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query": ["a"], "prompts": []}, "1 query but 0 prompts"),
        ({"query": ["a"], "labels": [1, 2]}, "1 query but 2 labels"),
        ({"query": ["a", 3]}, "query.1: Input should be a valid string"),
        ({"query": "a"}, "query: Input should be a valid array"),
        ({"query": ["a"], "prompts": [None]}, "prompts.0: Input should be a valid string"),
        ({"prompts": ["a"]}, "query: Field required"),
        ([], "Input should be an object"),
        (b"{", "Invalid JSON: EOF while parsing"),
        (b'{"query": [], "x": ' + b"[" * 1000, "Invalid JSON: recursion limit exceeded"),
        (b"\xff", "Invalid JSON"),
    ],
)
def test_bad_shapes(open_server, body, message):
    data = body if isinstance(body, bytes) else json.dumps(body)
    answer = requests.post(open_server.url, data=data, timeout=10)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(message)


def test_nobody_scores_for_a_client_that_hung_up(open_server):
    before = open_server.post(["a"]).json()["extra_logs"]["seen"][0]
    with ThreadPoolExecutor(1) as client:
        slow = client.submit(open_server.post, ["sleep"])
        time.sleep(0.3)
        with pytest.raises(requests.ReadTimeout):
            requests.post(open_server.url, json={"query": ["a", "b"]}, timeout=0.3)
        assert slow.result().status_code == 200
    assert open_server.post(["a"]).json()["extra_logs"]["seen"] == [before + 2]


def test_errors_look_alike(open_server):
    missing = requests.get(open_server.root + "/nowhere", timeout=10)
    assert (missing.status_code, missing.json()) == (404, {"error": "Not Found"})
    assert requests.get(open_server.url, timeout=10).json() == {"error": "Method Not Allowed"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_flight_finish(tmp_path, number):
    server = Running(tmp_path, "reward: {kind: team.words}")
    with ThreadPoolExecutor(2) as client:
        answer = client.submit(server.post, ["sleep a b"])
        time.sleep(0.5)
        waiting = client.submit(server.post, ["a b"])
        assert requests.get(server.root + "/health", timeout=1).status_code == 200  # the event loop is free
        code, errors = server.stop(number)
        assert answer.result().json()["rewards"] == [3.0]
        assert waiting.result().json()["rewards"] == [2.0]
    assert (code, errors) == (0, "")
    with pytest.raises(requests.ConnectionError):
        requests.get(server.root + "/health", timeout=1)


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [
        ("reward: {kind: length, target: 3}\nhsot: localhost", 2,
         "server.yaml:2: hsot: unknown key for Server, did you mean 'host'?"),
        ("reward: {kind: length, targt: 3}", 2,
         "server.yaml:1: reward.targt: unknown key for Length, did you mean 'target'?"),
        ("port: 5000", 2, "server.yaml:1: reward: required key is missing"),
        ("reward: {kind: length, target: 3}\n\nbatch_size: 0", 2, "server.yaml:3: batch_size: must be above 0, got 0"),
        ("reward: {kind: length, target: 3}\nhost: 0.0.0.0", 2,
         "server.yaml:2: host: 0.0.0.0 can be reached from other machines: set a token with `export REWARD_TOKEN="
         "$(openssl rand -hex 32)`, or use host: 127.0.0.1"),
        ("reward: {kind: length, target: 3}\nhost: 203.0.113.1\ntoken_env: USER_TOKEN", 1,
         "203.0.113.1:0: Cannot assign requested address (port=0 takes any that is free)"),
        ("reward: {kind: length, target: 3, unit: tokens}", 1,
         "the reward does not score the pair of `warm_up: {prompt: ..., completion: ..., label: ...}`: "
         "reward 'length' failed on completion 0 ('4'): KeyError: 'completion_ids'"),
        ("reward: {kind: length, target: 3}\ntokenizer: /nowhere", 2, "server.yaml:2: tokenizer: "),
    ],
)  # fmt: skip
def test_it_refuses_to_start(tmp_path, monkeypatch, capsys, config, code, message):
    from trimtab.scripts import serve_reward

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.delenv("REWARD_TOKEN", raising=False)
    monkeypatch.setenv("USER_TOKEN", "x")
    (tmp_path / "server.yaml").write_text(config)
    assert serve_reward.main(["--config", "server.yaml", "port=0"]) == code
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_without_the_extra_it_names_the_cure(monkeypatch, capsys):
    from trimtab.scripts import serve_reward

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "trimtab.pipelines.scoring.serving", raising=False)
    assert serve_reward.main(["--config", "server.yaml"]) == 2
    errors = capsys.readouterr().err
    assert "pip install 'trimtab[serve]'" in errors
    assert errors.count("\n") == 1


# The batcher by itself.


def batched(reward, groups, *, batch_size=4, max_wait=0.02, cancel=()):
    """Submits groups of queries as requests, all at once; what became of each, scores or its failure."""
    from trimtab.pipelines.scoring.batching import Batcher, Row

    async def main():
        batcher = Batcher(reward, "it", batch_size=batch_size, max_wait=max_wait)
        worker = asyncio.create_task(batcher.run())
        requests = [
            [Row(index=i, query=query, prompt="", completion=query) for i, query in enumerate(group)]
            for group in groups
        ]
        futures = [await batcher.submit(rows) for rows in requests]
        for place in cancel:
            futures[place].cancel()
        found = await asyncio.gather(*futures, return_exceptions=True)
        worker.cancel()
        return [
            outcome if isinstance(outcome, BaseException) else [row.outcome for row in rows]
            for outcome, rows in zip(found, requests, strict=True)
        ]

    return asyncio.run(main())


@pytest.fixture
def counter():
    """Scores the length; fails as a whole when there is an x, and by itself where there is a y."""

    def reward(prompts, completions, **columns):
        reward.calls.append(list(completions))
        reward.threads.add(threading.get_ident())
        if any("x" in completion for completion in completions):
            raise ValueError("an x")
        return [math_nan if "y" in completion else float(len(completion)) for completion in completions]

    math_nan = float("nan")
    reward.calls, reward.threads = [], set()
    return reward


def test_requests_are_merged_and_each_gets_its_own(counter):
    assert batched(counter, [["a"], ["aa", "aaa"], ["aaaa"]]) == [[1.0], [2.0, 3.0], [4.0]]
    assert counter.calls == [["a", "aa", "aaa", "aaaa"]]
    assert counter.threads.isdisjoint({threading.get_ident()})


def test_a_call_holds_the_oldest_and_those_nearest_to_it_in_length(counter):
    lengths = [5, 90, 6, 80, 4, 7, 100, 1]
    found = batched(counter, [["a" * n] for n in lengths])
    assert found == [[float(n)] for n in lengths]
    assert [[len(text) for text in call] for call in counter.calls] == [[5, 6, 4, 7], [90, 80, 100, 1]]
    assert len(counter.threads) == 1


def test_a_large_request_is_cut_into_calls(counter):
    assert batched(counter, [["a" * n for n in range(10)]]) == [[float(n) for n in range(10)]]
    assert [len(call) for call in counter.calls] == [4, 4, 2]


def test_a_lone_request_waits_for_others_no_longer_than_max_wait(counter):
    started = time.monotonic()
    batched(counter, [["a"]], max_wait=0.2)
    assert 0.2 <= time.monotonic() - started < 2
    started = time.monotonic()
    batched(counter, [["a"] * 4], max_wait=30)  # the batch is full
    assert time.monotonic() - started < 2


def test_what_brings_down_a_merged_call_fails_alone(counter):
    found = batched(counter, [["a"], ["ax", "aa"], ["aaa"]])
    assert found[::2] == [[1.0], [3.0]]
    assert isinstance(found[1], RewardFailure)
    assert str(found[1]).startswith("reward 'it' failed on completion 0 ('ax'): ValueError: an x (")
    assert [sorted(call) for call in counter.calls] == [["a", "aa", "aaa", "ax"], ["a"], ["aa", "ax"], ["aaa"]]


def test_a_row_that_fails_by_itself_costs_no_other_call(counter):
    found = batched(counter, [["a"], ["aa", "y"]])
    assert found[0] == [1.0]
    assert (found[1].index, found[1].reason) == (1, "the score is nan")
    assert len(counter.calls) == 1


def test_the_rest_of_a_failed_request_is_dropped(counter):
    assert isinstance(batched(counter, [["x"] * 100])[0], RewardFailure)
    assert len(counter.calls) == 1


def test_rows_of_a_client_that_left_are_dropped(counter):
    found = batched(counter, [["a"], ["aa"], ["aaa"]], cancel=[1])
    assert isinstance(found[1], asyncio.CancelledError)
    assert counter.calls == [["a", "aaa"]]


def test_a_reward_that_returns_nonsense_is_answered():
    class Odd:
        item = None  # looks like an array, and is none

    found = batched(lambda prompts, completions, **columns: [Odd()] * len(completions), [["a"], ["b"]])
    assert all(isinstance(failure, RewardFailure) for failure in found)
