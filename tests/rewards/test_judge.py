"""The reward `judge` against a server that replies by script: verdicts, both orders, and failures that are no zero."""

import threading

import pytest
from reward_servers import CHAT

from trimtab.rewards import RewardFailure, _judging, outcomes
from trimtab.rewards._chat import Endpoint
from trimtab.rewards.judge import Judge

PROMPTS = ["What is 1 + 1?"] * 3
ANSWERS = ["2", "two, of course", "3"]


def replies(says, tokens=10, finish="stop"):
    """A judge that replies what `says(question)` returns."""

    def step(handler, body):
        [message] = body["messages"]
        choice = {"message": {"role": "assistant", "content": says(message["content"])}, "finish_reason": finish}
        handler.reply({"choices": [choice], "usage": {"total_tokens": tokens}})

    return step


def of(server, **options):
    return Judge(url=server.url, model="judge", **options)


def score(judge, answers=ANSWERS, **columns):
    return outcomes(judge, PROMPTS[: len(answers)], answers, **columns)


def shown(question):
    """The answers that a question shows, in their order."""
    return [part.partition("]\n")[2].split("\n\n")[0] for part in question.split("[Answer")[1:]]


def prefers_short(question):
    first, second = shown(question)
    return f"Because it is brief.\n**Verdict: {'A' if len(first) <= len(second) else 'B'}**"


def test_grades_come_back_in_order(serve):
    logs = {}
    server = serve(replies(lambda question: f"It has no 3.\nVerdict: {9 - len(shown(question)[0]) / 2}"))
    assert score(of(server), log_extra=logs.__setitem__) == [8.5, 2.0, 8.5]
    assert logs == {"reply": [f"It has no 3.\nVerdict: {grade}" for grade in (8.5, 2.0, 8.5)]}
    _, headers, body = server.seen[0]
    assert body["model"] == "judge"
    assert body["temperature"] == 0
    assert "What is 1 + 1?" in body["messages"][0]["content"]
    assert "Authorization" not in headers


def test_a_pair_is_asked_in_both_orders(serve):
    logs = {}
    server = serve(replies(prefers_short))
    judge = of(server, mode="pairwise", against="chosen")
    assert score(judge, chosen=["22", "two", None], log_extra=logs.__setitem__) == [1.0, 0.0, None]
    assert len(server.seen) == 4
    assert logs == {
        "flipped": [0.0, 0.0, None],
        "tied": [0.0, 0.0, None],
        "preferred_first": [0.5, 0.5, None],
        "longer_wins": [0.0, 0.0, None],
    }


def test_a_verdict_that_flips_is_a_tie_and_counted(serve):
    logs = {}
    judge = of(serve(replies(lambda question: "Verdict: A")), mode="pairwise", against="chosen")
    assert score(judge, chosen=[[{"role": "assistant", "content": "2"}]] * 3, log_extra=logs.__setitem__) == [0.5] * 3
    assert [logs[name] for name in ("flipped", "tied", "preferred_first")] == [[1.0] * 3] * 3
    assert logs["longer_wins"] == [None, 0.5, None], "two of the answers are as long as the other one"


def test_a_list_is_ranked_as_one(serve):
    server = serve(replies(lambda question: "Verdict: 2 > 3 > 1" if len(shown(question)) == 3 else "Verdict: 1 > 2"))
    judge = of(server, mode="listwise")
    assert score(judge) == [0.0, 1.0, 0.5]
    assert outcomes(judge, ["p", "q", "p"], ANSWERS) == [1.0, None, 0.0]
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("I like it.", "there is no verdict in the reply: ...'I like it.'"),
        ("Verdict: 11", "the verdict 11 is not between 1 and 10"),
        ("Verdict: good", "there is no verdict"),
        ("", "there is no verdict"),
    ],
)
def test_a_reply_without_a_verdict_is_a_failure(serve, said, reason):
    for outcome in score(of(serve(replies(lambda question: said)))):
        assert isinstance(outcome, RewardFailure)
        assert reason in outcome.reason


def test_a_reply_that_is_cut_off_and_one_of_another_shape_are_failures(serve):
    [cut] = score(of(serve(replies(lambda question: "Verdict: 5", finish="length"))), ["2"])
    assert cut.reason == "the reply was cut off: raise `max_tokens`"
    for shape in ({"error": "no model"}, {"choices": []}, {"choices": [{"message": {"content": None}}]}, [1]):
        [other] = score(of(serve(lambda handler, body, shape=shape: handler.reply(shape))), ["2"])
        assert "choices[0].message.content" in other.reason


def test_what_may_pass_is_tried_again_and_what_stays_is_a_failure(serve):
    busy = lambda handler, body: handler.reply({}, 429)  # noqa: E731
    assert score(of(serve(busy, replies(lambda question: "Verdict: 5"))), ["2"]) == [5.0]
    [failure] = score(of(serve(busy), tries=2), ["2"])
    assert "status 429" in failure.reason
    assert "gave up after 2 tries" in failure.reason


def test_beyond_its_budget_nothing_is_asked(serve):
    server = serve(replies(lambda question: "Verdict: 5", tokens=60))
    judge = of(server, budget=100, concurrency=1)
    assert score(judge)[:2] == [5.0, 5.0]
    assert len(server.seen) == 2
    [failure] = score(judge, ["2"])
    assert failure.reason == "the budget of 100 tokens is used up (120 are used)"


def test_a_token_goes_along_and_stands_in_no_failure(serve, monkeypatch):
    monkeypatch.setenv("JUDGE_TOKEN", "s3cret-of-the-judge")
    server = serve(lambda handler, body: handler.reply({"said": "s3cret-of-the-judge"}))
    [failure] = score(of(server), ["2"])
    assert server.seen[0][1]["Authorization"] == "Bearer s3cret-of-the-judge"
    assert "s3cret" not in failure.reason


def test_the_question_is_the_recipes(serve):
    server = serve(replies(lambda question: "Verdict: 3"))
    template = "{{ prompt }} {{ completion }} ({{ reference }}) by {{ rubric }}, {{ low }} to {{ high }}"
    judge = of(server, template=template, rubric="brevity", scale=[0, 5], reference="gold")
    assert outcomes(judge, [CHAT], ["{{ 7 * 7 }}"], gold=["two"]) == [3.0]
    assert server.seen[0][2]["messages"][0]["content"] == "hi {{ 7 * 7 }} (two) by brevity, 0 to 5"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "{{ prompt }}"}, "has to be shown {{ completion }}"),
        ({"template": "{{ completion }} {{ gold }}"}, "nothing is called gold"),
        ({"template": "{{ completion"}, "template, line 1"),
        ({"mode": "pairwise"}, "go together"),
        ({"against": "chosen"}, "go together"),
        ({"scale": [10, 1]}, "scale must be"),
        ({"url": "host:8000"}, "the whole address"),
        ({"timeout": 0}, "timeout must be a positive number"),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(options, message):
    with pytest.raises(ValueError, match=message):
        Judge(model="judge", **options)


def test_verdicts_are_read_from_the_end():
    assert _judging.grade("Verdict: 3? No.\n**Verdict:** 7.5", 1, 10) == 7.5
    assert _judging.preferred("Verdict: [[B]]") == "b"
    assert _judging.preferred("verdict: tie") == "tie"
    assert _judging.order("Verdict: 2 > 1", 2) == [1, 0]
    with pytest.raises(ValueError, match="does not rank 3 answers"):
        _judging.order("Verdict: 2 > 1", 3)
    assert _judging.in_both_orders("a", "tie") == (0.75, False)
    assert _judging.by_rank([2, 0, 1]) == [0.5, 0.0, 1.0]


def test_a_local_model_is_asked_like_a_server(model):
    """A random model has no verdict: that is a failure with its words, and no zero."""
    judged = score(Judge(model=model, max_tokens=4, template="{{ completion }}"), ANSWERS[:2])
    assert ["there is no verdict" in outcome.reason for outcome in judged] == [True, True]


def test_an_interruption_waits_for_no_deadline():
    """Ctrl-C while questions are asked: what is under way is stopped, and nothing more is begun."""

    class Interrupted:
        asked = stopped = 0

        def __call__(self, urls, body, parse):
            self.asked += 1
            raise KeyboardInterrupt

        def stop(self):
            self.stopped += 1

    post = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        Endpoint("http://127.0.0.1:9", {}, concurrency=1, budget=None)(post, ["a"] * 50)
    assert post.stopped == 1
    assert post.asked < 50


def test_an_interrupt_ends_the_requests_at_hand_and_does_not_wait_for_them():
    asked, released = threading.Event(), threading.Event()
    waited = []

    class Hanging:
        def __call__(self, urls, body, parse):
            if body["messages"][0]["content"] == "stop":
                asked.wait(60)
                raise KeyboardInterrupt
            asked.set()
            waited.append(not released.wait(1))
            return urls[0], ("late", 1)

        def stop(self):
            released.set()

    with pytest.raises(KeyboardInterrupt):
        Endpoint("http://127.0.0.1:9", {}, concurrency=2, budget=None)(Hanging(), ["stop", "hang"])
    assert waited == [False]
