"""The reward `remote` against a server that misbehaves by script: every fault is told, and none becomes a score."""

import threading

import pytest
from reward_servers import (
    COMPLETIONS,
    PROMPTS,
    SCORES,
    closed_port,
    drip,
    drip_headers,
    fine,
    flood,
    reason,
    remote,
    reset,
    says,
    score,
    silence,
)

from trimtab.pipelines.planning import schema
from trimtab.rewards import PartlyScored
from trimtab.rewards.remote import Remote

TOKEN = "t0ken-of-the-team"
pytestmark = pytest.mark.usefixtures("clock")


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


def test_as_many_requests_at_a_time_as_concurrency_and_no_more(serve):
    running, most, three = set(), [], threading.Barrier(3, timeout=120)

    def counted(handler, body):
        running.add(handler)
        most.append(len(running))
        three.wait()
        running.remove(handler)
        three.wait()
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
    assert score(remote(server.url)) == SCORES
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (says({"detail": "out of memory"}, 500), 'http: status 500: \'{"detail": "out of memory"}\''),
        (says(b"", 503), "http: status 503"),
        (reset, "http: ReadError: [Errno 104] Connection reset by peer"),
        (drip, "http: no whole reply within 60 s"),
        (silence, "http: no whole reply within 60 s"),
    ],
    ids=["500", "503", "reset", "drip", "silence"],
)
def test_what_does_not_pass_fails_after_all_tries(serve, fault, said):
    server = serve(fault)
    why = reason(score(remote(server.url)))
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
    last, wrong, *others = score(remote(server.url))
    assert wrong.reason == f"{server.url}: {said}"
    assert [last, *others] == [4.0, 0.0, 1.0]
    assert len(server.seen) == 1


def test_null_is_an_abstention(serve):
    server = serve(says({"rewards": [1, None, 3, 4]}))
    assert score(remote(server.url)) == [4.0, None, 3.0, 1.0]


def test_a_batch_that_fails_leaves_the_others_their_scores(serve):
    server = serve(fine, says(b"<html>"))
    with pytest.raises(PartlyScored, match=r"2 of 4 completions have no score; the first: .* is not JSON"):
        remote(server.url, batch_size=2, concurrency=1)(prompts=PROMPTS, completions=COMPLETIONS)


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
