"""The reward kind `remote` against a server that misbehaves by script: every fault ends in time, and none as a 0."""

import contextlib
import email.utils
import socket
import threading
import time

import pytest
from reward_servers import (
    COMPLETIONS,
    SCORES,
    Metronome,
    Server,
    drip,
    drip_headers,
    fine,
    flood,
    reset,
    says,
    silence,
)

from trimtab.pipelines.planning import schema
from trimtab.rewards import PartlyScored, _http, outcomes
from trimtab.rewards.remote import Remote

PROMPTS = ["p"] * 4
CHAT = [{"role": "user", "content": "hi"}]
TOKEN = "t0ken-of-the-team"


@pytest.fixture
def serve():
    """Starts servers, each with its steps; they are closed after the test."""
    with contextlib.ExitStack() as stack:

        def serve(*steps):
            server = Server(*steps)
            stack.callback(server.close)
            return server

        yield serve


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_http, "BACKOFF", 0.02)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("REWARD_TOKEN", raising=False)


def remote(url, **options):
    options = {"connect_timeout": 2, "timeout": 2, "tries": 3, "deadline": 8, "batch_size": 4} | options
    return Remote(url=url, **options)


def score(reward, prompts=PROMPTS, completions=COMPLETIONS, *, within=2.5, **columns):
    with Metronome() as clock:
        answers = outcomes(reward, prompts, completions, **columns)
    assert clock.seconds < within
    return answers


def reason(found):
    """The reason that all outcomes share; a score among them is an error."""
    (said,) = {outcome.reason for outcome in found}
    return said


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_scores_come_back_in_the_order_of_the_completions(serve):
    server = serve(fine)
    assert remote(server.url, batch_size=1, concurrency=4)(prompts=PROMPTS, completions=COMPLETIONS) == SCORES
    assert len(server.seen) == 4
    assert remote(server.url)(prompts=[], completions=[]) == []
    assert len(server.seen) == 4, "nothing to score, nothing to ask"


def test_batches_hold_like_lengths(serve):
    server = serve(fine)
    assert score(remote(server.url, batch_size=2, concurrency=1)) == SCORES
    assert [body["query"] for *_, body in server.seen] == [["pdddd", "pbbb"], ["pcc", "pa"]]


def test_no_more_requests_at_a_time_than_concurrency(serve):
    running, most, lock = [], [], threading.Lock()

    def counted(handler, body):
        with lock:
            running.append(1)
            most.append(len(running))
        time.sleep(0.03)
        with lock:
            running.pop()
        fine(handler, body)

    server = serve(counted)
    score(remote(server.url, batch_size=1, concurrency=3), ["p"] * 12, ["c"] * 12)
    assert max(most) == 3


@pytest.mark.parametrize(
    "fault",
    [says({}, 500), says({}, 503), says({}, 429), says({}, 408), says({}, 425), reset, drip, drip_headers, silence],
    ids=["500", "503", "429", "408", "425", "reset", "drip", "drip_headers", "silence"],
)
def test_what_may_pass_is_tried_again(serve, fault):
    server = serve(fault, fine)
    assert score(remote(server.url, timeout=1)) == SCORES  # the first try of a slow fault ends, the second has time
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (says({"detail": "out of memory"}, 500), 'http: status 500: \'{"detail": "out of memory"}\''),
        (says(b"", 503), "http: status 503"),
        (reset, "http: ReadError: [Errno 104] Connection reset by peer"),
        (drip, "http: no whole reply within 0.25 s"),
        (silence, "http: no whole reply within 0.25 s"),
    ],
    ids=["500", "503", "reset", "drip", "silence"],
)
def test_what_does_not_pass_fails_after_all_tries(serve, fault, said):
    server = serve(fault)
    why = reason(score(remote(server.url, timeout=0.25)))
    assert why.startswith(f"{server.url}: {said}")
    assert "(gave up after 3 tries in " in why
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (says({"rewards": [1.0]}), "schema: not the expected reply, 1 items in 'rewards' for 4 completions"),
        (says({"score": [1.0]}), "schema: not the expected reply, no 'rewards' in it: '{\"score\": [1.0]}'"),
        (says({"rewards": 1.0}), "schema: not the expected reply, 'rewards' is no list"),
        (says([1.0]), "schema: not the expected reply, no 'rewards' in it"),
        (says(b"<html>Sign in, key hf_abcdefghij</html>"),
         "schema: the reply is not JSON: '<html>Sign in, key (redacted)</html>'"),
        (says(b"[" * 100_000), "schema: the reply is not JSON: '[["),
        (flood, "http: the reply is larger than 16 MB (max_response_mb): '[[["),
        (says(b"", 307, Location="http://elsewhere/get?key=abc"),
         "http: status 307 points to http://elsewhere/get, and redirects are not followed"),
        (says(b"", 401), "http: status 401 (is the bearer token right? see token_env)"),
        (says({"detail": "no such model"}, 404), "http: status 404: '{\"detail\": \"no such model\"}'"),
        (says({}, 422), "http: status 422"),
    ],
    ids=["count", "key", "no_list", "no_object", "html", "nested", "flood", "redirect", "401", "404", "422"],
)  # fmt: skip
def test_what_cannot_pass_is_not_tried_again(serve, fault, said):
    server = serve(fault)
    why = reason(score(remote(server.url)))
    assert why.startswith(f"{server.url}: {said}")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (b"NaN", "the score is nan"),
        (b"Infinity", "the score is inf"),
        (b"-Infinity", "the score is -inf"),
        (b"9" * 400, "the score is inf"),
        (b'"0.5"', "expected a number, got '0.5'"),
        (b"[0.5]", "expected a number, got [0.5]"),
    ],
)
def test_a_score_that_is_no_finite_number_fails_its_own_completion(serve, item, said):
    server = serve(says(b'{"rewards": [1, ' + item + b", 0, 4]}"))  # in the order of the request: longest first
    found = score(remote(server.url))
    assert found[0] == 4.0
    assert found[1].reason == f"{server.url}: {said}"
    assert found[2:] == [0.0, 1.0]
    assert len(server.seen) == 1


def test_null_is_an_abstention(serve):
    server = serve(says({"rewards": [1, None, 3, 4]}))
    assert score(remote(server.url)) == [4.0, None, 3.0, 1.0]


def test_a_batch_that_fails_leaves_the_others_their_scores(serve):
    server = serve(fine, says(b"<html>"))
    with pytest.raises(PartlyScored, match=r"2 of 4 completions have no score; the first: .* is not JSON"):
        remote(server.url, batch_size=2, concurrency=1)(prompts=PROMPTS, completions=COMPLETIONS)


@pytest.mark.parametrize("after", ["1", lambda: email.utils.formatdate(time.time() + 2, usegmt=True)])
def test_retry_after_is_honoured(serve, after):
    server = serve(says({}, 429, Retry_After=after() if callable(after) else after), fine)
    began = time.monotonic()
    assert score(remote(server.url, deadline=5)) == SCORES
    assert time.monotonic() - began > 0.9


def test_a_wait_longer_than_the_deadline_is_not_begun(serve):
    server = serve(says({}, 429, Retry_After=3600))
    assert ", to be tried again after 3.6e+03 s" in reason(score(remote(server.url), within=1))
    assert len(server.seen) == 1


def test_the_deadline_ends_the_tries(serve):
    server = serve(silence)
    why = reason(score(remote(server.url, tries=100, timeout=0.25, deadline=0.7), within=1))
    assert "no whole reply" in why
    assert 2 <= len(server.seen) <= 3


def test_a_refused_connection_is_tried_again_and_then_fails():
    port = closed_port()
    why = reason(score(remote(f"http://127.0.0.1:{port}/x")))
    assert why.startswith(f"http://127.0.0.1:{port}/x: tcp: ConnectError: [Errno 111] Connection refused (gave up ")
    assert "after 3 tries" in why


def test_a_dead_server_ends_the_call_at_its_first_batches(monkeypatch):
    monkeypatch.setattr(_http, "BACKOFF", 0.1)
    found = score(remote(f"http://127.0.0.1:{closed_port()}/x", batch_size=1, concurrency=2), ["p"] * 50, ["c"] * 50)
    assert len(found) == 50
    assert all("Connection refused" in outcome.reason for outcome in found)


def test_an_error_ends_the_requests_that_are_under_way(serve):
    """As Ctrl-C does; here the longest completion's label cannot be sent, and the other requests are not answered."""
    reward = remote(serve(silence).url, label="answer", batch_size=1, timeout=60, deadline=60)
    why = reason(score(reward, answer=["one", "two", "three", {4}], within=1))
    assert why == "TypeError: Object of type set is not JSON serializable"


def test_batches_go_round_and_a_retry_goes_to_the_next_server(serve):
    one, two = serve(fine), serve(fine)
    assert score(remote([one.url, two.url], batch_size=1)) == SCORES
    assert (len(one.seen), len(two.seen)) == (2, 2)
    broken = serve(says({}, 500))
    assert score(remote([broken.url, two.url], batch_size=1)) == SCORES
    assert (len(broken.seen), len(two.seen)) == (2, 6)
    dead = f"http://127.0.0.1:{closed_port()}/x"
    assert score(remote([dead, two.url], batch_size=1)) == SCORES


def test_small_calls_have_their_turns_too(serve, monkeypatch):
    one, two = serve(fine), serve(fine)
    reward = remote([one.url, two.url])
    score(reward)
    score(reward)
    assert (len(one.seen), len(two.seen)) == (1, 1)
    monkeypatch.setenv("RANK", "1")
    score(remote([one.url, two.url]))
    assert (len(one.seen), len(two.seen)) == (1, 2)


def test_the_token_is_sent_and_never_said(serve, monkeypatch, caplog):
    monkeypatch.setenv("MY_TOKEN", TOKEN + "\n")
    for fault in (says({"you sent": TOKEN}, 500), says(f"<p>{TOKEN}</p>".encode()), says({TOKEN: 1}), reset,
                  says(b"", 302, Location=f"http://{TOKEN}/")):  # fmt: skip
        server = serve(fault)
        reward = remote(server.url, token_env="MY_TOKEN")
        why = reason(score(reward))
        assert server.seen[0][1]["Authorization"] == f"Bearer {TOKEN}"
        assert TOKEN not in why + repr(reward) + caplog.text
    assert "trying again" in caplog.text
    monkeypatch.setenv("MY_TOKEN", "two words")
    with pytest.raises(ValueError, match=r"the token in \$MY_TOKEN has characters that a header cannot hold"):
        reward(prompts=["p"], completions=["c"])


def test_without_a_token_none_is_sent(serve):
    server = serve(fine)
    score(remote(server.url))
    assert "Authorization" not in server.seen[0][1]


def test_openrlhfs_request_and_logs(serve):
    def logging(handler, body):
        count = len(body["query"])
        logs = {"length": [len(query) for query in body["query"]], "step": 7, "odd": [1] * (count + 1)}
        handler.reply({"rewards": [0.8] * count, "scores": [0.5] * count, "extra_logs": logs})

    server, logged = serve(logging), {}
    columns = {"answer": ["one", 2, None, {"four": 4}], "log_extra": logged.__setitem__}
    assert score(remote(server.url, label="answer", batch_size=3), **columns) == [0.8] * 4
    assert sorted(server.seen, key=lambda seen: -len(seen[2]["query"]))[0][2] == {
        "query": ["pdddd", "pbbb", "pcc"],
        "prompts": ["p"] * 3,
        "labels": [{"four": 4}, 2, None],
    }
    assert logged == {"length": [2, 4, 3, 5], "step": [7] * 4, "scores": [0.5] * 4}
    assert "there is no column 'gone'" in reason(score(remote(server.url, label="gone"), **columns))


def test_llamafactorys_request(serve):
    server = serve(says({"scores": [1, 2, 3, 4]}))
    assert score(remote(server.url, protocol="llamafactory")) == [4.0, 2.0, 3.0, 1.0]
    assert server.seen[0][2] == {"model": "model", "messages": ["pdddd", "pbbb", "pcc", "pa"]}
    score(remote(server.url, protocol="llamafactory", model="rm"))
    assert server.seen[1][2]["model"] == "rm"


VLLM = {"model": "rm", "use_activation": False}
TEXTS = ["pdddd", "pbbb", "pcc", "pa"]


@pytest.mark.parametrize(
    ("protocol", "asked", "item"),
    [
        ("vllm_classify", {**VLLM, "input": TEXTS, "add_special_tokens": False},
         lambda value: {"label": "LABEL_0", "probs": [value], "num_classes": 1}),
        ("vllm_pooling", {**VLLM, "input": TEXTS, "add_special_tokens": False, "task": "classify"},
         lambda value: {"object": "pooling", "data": [value]}),
        ("vllm_score", {**VLLM, "text_1": PROMPTS, "text_2": ["dddd", "bbb", "cc", "a"]},
         lambda value: {"object": "score", "score": value}),
    ],
)  # fmt: skip
def test_vllms_requests_and_indices(serve, protocol, asked, item):
    server = serve(says({"data": [{"index": i, **item(i / 2)} for i in (2, 0, 3, 1)]}))
    assert score(remote(server.url, protocol=protocol, model="rm")) == [1.5, 0.5, 1.0, 0.0]
    assert server.seen[0][2] == asked
    twice = serve(says({"data": [{"index": i, **item(0.5)} for i in (0, 0, 1, 2)]}))
    assert "the indices are not those of 4" in reason(score(remote(twice.url, protocol=protocol, model="rm")))


def test_more_than_one_class_is_no_reward(serve):
    server = serve(says({"data": [{"index": i, "probs": [0.1, 0.9]} for i in range(4)]}))
    why = reason(score(remote(server.url, protocol="vllm_classify", model="rm")))
    assert "2 classes per completion, but a reward model has one output (num_classes: 1)" in why


def test_vllm_renders_a_conversation_alone(serve):
    def classify(handler, body):
        handler.reply({"data": [{"index": 0, "probs": [len(body["messages"][-1]["content"])]}]})

    server = serve(classify)
    answers = [[{"role": "assistant", "content": said}] for said in ("a", "bb", "ccc")]
    assert score(remote(server.url, protocol="vllm_classify", model="rm"), [CHAT] * 3, answers) == [1.0, 2.0, 3.0]
    assert {"messages": CHAT + answers[0], **VLLM, "add_special_tokens": False} in [body for *_, body in server.seen]
    pair = serve(says({"data": [{"index": 0, "score": 0.5}]}))
    assert score(remote(pair.url, protocol="vllm_score", model="rm"), [CHAT], answers[:1]) == [0.5]
    assert pair.seen[0][2] == {**VLLM, "text_1": ["hi"], "text_2": ["a"]}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tokenizer that adds <s> by itself, with a chat template, as a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "[UNK]": 2, "x": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    whole = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="[UNK]"
    )
    whole.chat_template = (
        "<s>{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    whole.save_pretrained(folder)
    return folder


def test_the_tokenizer_renders_with_the_special_tokens_once(serve, tokenizer):
    server = serve(fine)
    reward = remote(server.url, tokenizer=tokenizer, batch_size=1)
    score(reward, [CHAT], [[{"role": "assistant", "content": "yes"}]], within=20)  # transformers is imported
    score(reward, [CHAT], ["yes"])
    score(reward, ["say yes:"], ["yes"])
    score(reward, ["<s>say yes:"], ["yes</s>"])
    chat = {"query": ["<s>[user] hi</s>[assistant] yes</s>"], "prompts": ["<s>[user] hi</s>[assistant] "]}
    text = {"query": ["<s>say yes:yes</s>"], "prompts": ["<s>say yes:"]}
    assert [body for *_, body in server.seen] == [{**body, "labels": [""]} for body in (chat, chat, text, text)]


@pytest.mark.parametrize("protocol", ["openrlhf", "llamafactory"])
def test_a_conversation_needs_a_tokenizer(serve, protocol):
    server = serve(fine)
    why = reason(score(remote(server.url, protocol=protocol), [CHAT], ["yes"]))
    assert "name the reward model's tokenizer" in why
    assert "`tokenizer: $helpful`" in why
    assert server.seen == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "rm-host:5000/get_reward"}, r"expected one http\(s\) URL, such as http://host:5000/get_reward"),
        ({"url": "file:///etc/passwd"}, "expected one http"),
        ({"url": "http://a:1/x,http://b:2/x"}, "expected one http"),
        ({"url": "http://host:port/x"}, "expected one http"),
        ({"url": []}, "url is an empty list"),
        ({"url": "http://me:secret@host/x"}, r"must not hold credentials: .* comes from \$REWARD_TOKEN \(token_env\)"),
        ({"timeout": 0}, "timeout must be a positive number, got 0"),
        ({"deadline": float("nan")}, "deadline must be a positive number, got nan"),
        ({"tries": -1}, "tries must be a positive number"),
        ({"protocol": "vllm_classify"}, "vllm_classify needs `model`"),
    ],
)
def test_options_are_checked_without_a_connection(options, said):
    with pytest.raises(ValueError, match=said) as caught:
        Remote(**{"url": "http://nowhere.invalid/x", **options})
    assert "secret" not in str(caught.value)


def test_a_recipes_block():
    block = {"kind": "remote", "url": ["http://a:1/x", "http://b:2/x"], "timeout": "2.5", "protocol": "llamafactory"}
    assert schema.load_reward(block) == Remote(
        url=["http://a:1/x", "http://b:2/x"], timeout=2.5, protocol="llamafactory"
    )


def probe(reward, seconds=0.6):
    with Metronome() as clock:
        answers = list(reward.probe(seconds))
    assert clock.seconds < seconds + 0.3
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
    stages, detail = probe(remote(server.url, timeout=60))
    passed = ["url", "dns", "tcp", "http", "schema"]
    assert stages == [(name, True) for name in passed[: passed.index(stage)]] + [(stage, False)]
    assert said in detail
    assert len(server.seen) == 1


def test_probe_of_a_refused_connection_and_of_an_unknown_host(serve, monkeypatch):
    server = serve(fine)
    real = socket.getaddrinfo

    def lookup(host, *args, **options):
        if host == "slow.invalid":
            time.sleep(2)
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
    assert probe(remote("http://slow.invalid/x"), 0.3)[0] == [("url", True), ("dns", False)]
    why = reason(score(remote("http://gone.invalid/x")))
    assert why.startswith("http://gone.invalid/x: dns: ConnectError: [Errno -2] Name or service not known")
