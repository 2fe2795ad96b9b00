"""What the sections of the page are filled with."""

import math

from trimtab.pipelines.planning import kinds
from trimtab.pipelines.reporting import sections


def of_kind(word):
    """The results that a kind asks for."""
    return kinds.find(kinds.STAGES, word).shows.results


def test_long_completions_are_folded():
    shown, rest = sections.fold("word " * 300)
    assert len(shown) <= sections.FOLDED
    assert shown + rest == "word " * 300
    assert sections.fold("x" * 2000)[0] == "x" * sections.FOLDED
    assert sections.fold("short") == ("short", "")
    assert sections.fold([{"role": "assistant", "content": "a"}, {"role": "user", "content": None}]) == ("a\n", "")


def test_results_are_what_matters_of_a_kind():
    scores = {"rewards/gold/abstained": 0.0, "rewards/gold/mean": 1.25, "rewards/kind/mean": math.nan, "x": 2}
    assert sections.results(scores, of_kind("score")) == [("gold", "1.25")]
    assert sections.results({"train/runtime": 3.0, "a[b]": 1, "c/d": 2, "e": 3}, ()) == [("a[b]", "1"), ("c d", "2")]


def test_what_rewards_have_reached_is_shown_and_no_multiplier():
    metrics = {"train/loss": 0.1, "reached/coverage": 1.46, "reached/politeness": 0.65, "lambda/coverage": 0.09}
    shown = sections.results(metrics, of_kind("constrained"))
    assert shown == [("reached coverage", "1.46"), ("reached politeness", "0.65")]
    assert sections.results(metrics, ("lambda/*",)) == [("lambda coverage", "0.09")]
    assert sections.results({"rewards/coverage/mean": 0.09}, of_kind("monitor")) == [("coverage", "0.09")]


def test_what_the_audit_counted_is_told_block_by_block():
    rows = [
        {"data/rows": 90, "data/dropped/empty": 3, "data/warned/cut": 8},
        {"eval_data/rows": 7, "train/rows": "x"},
    ]
    sources = {"a": {"read": 93, "dropped": 3, "used": 90}}
    first, second = sections.audited({"rows": rows, "sources": {"data": sources}})
    assert (first["sources"], second["sources"]) == (sources, {})
    assert (first["block"], first["rows"], first["dropped"], first["warned"]) == ("data", 90, {"empty": 3}, {"cut": 8})
    assert (second["block"], second["rows"], second["dropped"], second["warned"]) == ("eval_data", 7, {}, {})
