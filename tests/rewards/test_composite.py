"""Rewards made of rewards: every formula against numbers worked out by hand, and every way to get the block wrong."""

import math

import pytest

from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.rewards import PartlyScored, RewardFailure, outcomes
from trimtab.rewards.composite import Composite
from trimtab.rewards.ensemble import Ensemble


def fixed(*scores):
    """A reward that says these, whatever it is asked; a string is a failure."""

    def reward(prompts, completions, **columns):
        found = [RewardFailure(score) if isinstance(score, str) else score for score in scores]
        if any(isinstance(score, str) for score in scores):
            raise PartlyScored(found)
        return found

    return reward


def ask(reward, n, **columns):
    return outcomes(reward, ["p"] * n, ["c"] * n, **columns)


A, B = fixed(1.0, 2.0, -3.0), fixed(0.5, -1.0, 4.0)


def test_sum():
    assert ask(Composite(rewards={"a": A, "b": B}), 3) == [1.5, 1.0, 1.0]
    assert ask(Composite(rewards={"a": A, "b": B}, weights={"b": 2.0}), 3) == [2.0, 0.0, 5.0]
    assert ask(Composite(rewards={"a": A}, weights={"a": 0.0}), 3) == [0.0, 0.0, 0.0]


def test_product():
    assert ask(Composite(rewards={"a": A, "b": B}, combine="product"), 3) == [0.5, -2.0, -12.0]


def test_a_gate_opens_at_its_threshold():
    parts = {"a": A, "b": B, "right": fixed(0.49, 0.5, 1.0)}
    assert ask(Composite(rewards=parts, gate="right"), 3) == [0.0, 1.0, 1.0]
    assert ask(Composite(rewards=parts, gate="right", otherwise=-7.0, weights={"a": 3.0}), 3) == [-7.0, 5.0, -5.0]
    assert ask(Composite(rewards=parts, gate="right", at_least=1.0, combine="product"), 3) == [0.0, 0.0, -12.0]


def test_sigmoid_gate():
    parts = {"quality": fixed(2.0, 2.0, 0.0), "right": fixed(1.0, 0.0, 1.0)}
    reward = Composite(rewards=parts, combine="sigmoid_gate", gate="right", scale=0.5)
    half = 1 / (1 + math.exp(-1))  # sigmoid(0.5 * 2) = 0.7311
    assert ask(reward, 3) == pytest.approx([half, half - 1, 0.5])
    two = Composite(rewards={**parts, "b": fixed(1.0, 1.0, 1.0)}, combine="sigmoid_gate", gate="right",
                    weights={"b": -2.0})  # fmt: skip
    assert ask(two, 3) == pytest.approx([0.5, -0.5, 1 / (1 + math.exp(2))])


def test_sigmoid_gate_puts_whatever_is_right_above_whatever_is_wrong():
    values = [float(v) for v in range(-30, 31)]
    quality = fixed(*values, *values, 1e6, -1e6)
    right = fixed(*[1.0] * 61, *[0.0] * 61, 0.0, 1.0)
    found = ask(Composite(rewards={"q": quality, "v": right}, combine="sigmoid_gate", gate="v"), 124)
    assert min(found[:61]) > 0 > max(found[61:122])
    assert found[:61] == sorted(found[:61])
    assert found[122:] == [0.0, 0.0]  # saturated, but no overflow


def test_clipping_of_parts_and_of_the_total():
    parts = {"a": A, "b": B}
    assert ask(Composite(rewards=parts, clip={"a": [-1, 1.5]}), 3) == [1.5, 0.5, 3.0]
    assert ask(Composite(rewards=parts, clip={"a": [-1, 1.5], "total": [1, 2]}), 3) == [1.5, 1.0, 2.0]
    gated = Composite(rewards={**parts, "g": fixed(9.0, 0.0, 0.3)}, gate="g", at_least=1.0, otherwise=-9.0,
                      clip={"g": [0, 1], "total": [-2, 0.5]})  # fmt: skip
    assert ask(gated, 3) == [0.5, -2.0, -2.0]


def test_abstention():
    parts = {"a": fixed(1.0, None, None), "b": fixed(2.0, 2.0, None)}
    assert ask(Composite(rewards=parts), 3) == [3.0, None, None]
    assert ask(Composite(rewards=parts, missing="ignore"), 3) == [3.0, 2.0, None]
    assert ask(Composite(rewards=parts, missing="ignore", combine="product"), 3) == [2.0, 2.0, None]


def test_an_abstaining_gate_is_never_ignored():
    parts = {"a": fixed(1.0, None, None, 1.0), "g": fixed(None, 1.0, 0.0, 1.0)}
    assert ask(Composite(rewards=parts, gate="g"), 4) == [None, None, None, 1.0]
    assert ask(Composite(rewards=parts, gate="g", missing="ignore"), 4) == [None, None, 0.0, 1.0]
    soft = Composite(rewards=parts, gate="g", missing="ignore", combine="sigmoid_gate")
    assert ask(soft, 4) == [None, None, None, pytest.approx(1 / (1 + math.exp(-1)))]


def test_a_failed_part_fails_its_row_and_is_named():
    parts = {"a": fixed(1.0, None, 1.0), "judge": fixed(1.0, "no answer with hf_abcdefghijk", 2.0)}
    found = ask(Composite(rewards=parts, missing="ignore"), 3, name="mix")
    assert found[0] == 2.0
    assert found[2] == 3.0
    assert found[1].reason == "part 'judge': no answer with (redacted)"
    assert (found[1].reward, found[1].index, found[1].sample) == ("mix", 1, "c")
    nested = ask(Composite(rewards={"outer": Composite(rewards=parts)}), 3)
    assert nested[1].reason == "part 'outer': part 'judge': no answer with (redacted)"


def test_a_part_that_raises_fails_every_row():
    def broken(prompts, completions, **columns):
        raise RuntimeError("out of memory")

    found = ask(Composite(rewards={"a": A, "b": broken}), 3)
    assert all(failure.reason.startswith("part 'b': RuntimeError: out of memory (") for failure in found)
    assert isinstance(found[0].__cause__, RuntimeError)
    assert len(found) == 3
    assert (
        ask(Composite(rewards={"a": A, "b": fixed(1.0, math.nan, 1.0)}), 3)[1].reason == "part 'b': the score is nan"
    )


def test_parts_are_logged_each_under_its_own_name():
    def chatty(prompts, completions, log_extra, log_metric, **columns):
        log_extra("words", [3, 4, 5])
        log_metric("calls", 1.0)
        return [1.0, 1.0, 1.0]

    extra, metrics = {}, {}
    inner = Composite(rewards={"a": A, "chatty": chatty})
    outer = Composite(rewards={"inner": inner, "b": fixed(1.0, None, "broken")}, missing="ignore")
    ask(outer, 3, log_extra=extra.__setitem__, log_metric=metrics.__setitem__)
    assert extra == {
        "inner": [2.0, 3.0, -2.0],
        "b": [1.0, None, None],
        "inner/a": [1.0, 2.0, -3.0],
        "inner/chatty": [1.0, 1.0, 1.0],
        "inner/chatty/words": [3, 4, 5],
    }
    assert metrics == {"inner/chatty/calls": 1.0}


def test_columns_reach_every_part():
    def label(prompts, completions, labels, **columns):
        return labels

    assert ask(Composite(rewards={"x": label, "y": label}), 2, labels=[1, 2]) == [2.0, 4.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewards": {}}, "name at least one part"),
        ({"rewards": {"total": A}}, "no part can be called 'total'"),
        ({"gate": "rihgt"}, "gate: no part 'rihgt', did you mean 'right'"),
        ({"rewards": {"a": A}, "gate": "a"}, "only part"),
        ({"weights": {"z": 1.0}}, r"weights: no part 'z' \(parts: a, right\)"),
        ({"weights": {"right": 1.0}, "gate": "right"}, "'right' is the gate, which has no weight"),
        ({"weights": {"a": 2.0}, "combine": "product"}, "a product has no weights"),
        ({"combine": "sigmoid_gate"}, "sigmoid_gate needs `gate`"),
        ({"scale": 0.5}, "scale belongs to sigmoid_gate"),
        ({"otherwise": -1.0}, "belong to a sum or a product with a gate"),
        ({"at_least": 1.0, "gate": "right", "combine": "sigmoid_gate"}, "belong to a sum or a product with a gate"),
        ({"clip": {"totl": [0, 1]}}, "clip: no part 'totl', did you mean 'total'"),
        ({"clip": {"a": [1, 0]}}, r"clip.a must be \[low, high\]"),
        ({"clip": {"a": [1]}}, r"clip.a must be \[low, high\]"),
    ],
)
def test_what_does_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        Composite(**{"rewards": {"a": A, "right": B}, **options})


def test_ensemble():
    members = {"x": fixed(1.0, 4.0, None), "y": fixed(3.0, 4.0, 1.0)}
    assert ask(Ensemble(rewards=members), 3) == [2.0, 4.0, None]
    assert ask(Ensemble(rewards=members, reduce="min"), 3) == [1.0, 4.0, None]
    # the population's standard deviation of 1 and 3 is 1
    assert ask(Ensemble(rewards=members, reduce="mean_minus_std"), 3) == [1.0, 4.0, None]
    assert ask(Ensemble(rewards=members, reduce="mean_minus_std", k=0.5), 3) == [1.5, 4.0, None]
    four = {name: fixed(score) for name, score in zip("abcd", (2.0, 4.0, 4.0, 6.0), strict=True)}
    assert ask(Ensemble(rewards=four, reduce="mean_minus_std", k=2.0), 1) == [pytest.approx(4 - 2 * math.sqrt(2))]


def test_ensemble_logs_members_and_spread_and_names_who_failed():
    extra = {}
    members = {"x": fixed(1.0, None, 1.0), "y": fixed(3.0, 1.0, "timed out")}
    found = ask(Ensemble(rewards=members), 3, log_extra=extra.__setitem__)
    assert found[:2] == [2.0, None]
    assert found[2].reason == "part 'y': timed out"
    assert extra == {"x": [1.0, None, 1.0], "y": [3.0, 1.0, None], "std": [1.0, None, None]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewards": {"a": A}}, "at least 2 members, got 1"),
        ({"rewards": {"a": A, "std": B}}, "no member can be called 'std'"),
        ({"k": -1.0, "reduce": "mean_minus_std"}, "k must not be negative"),
        ({"k": 2.0}, "k belongs to mean_minus_std"),
    ],
)
def test_what_is_no_ensemble(options, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(**{"rewards": {"a": A, "b": B}, **options})


BLOCK = {
    "kind": "composite",
    "rewards": {
        "form": {"kind": "composite", "combine": "product", "rewards": {
            "boxed": {"kind": "pattern", "regex": "b"}, "twice": {"kind": "pattern", "regex": "a", "count": True}}},
        "brief": {"kind": "ensemble", "reduce": "min", "rewards": {
            "words": {"kind": "length", "target": 2},
            "letters": {"kind": "length", "target": 4, "unit": "characters"}}},
    },
    "weights": {"brief": "1e1"},
    "clip": {"total": [-20, 20]},
}  # fmt: skip


def test_from_a_recipe_two_deep():
    reward = schema.load_reward(BLOCK)
    assert isinstance(reward.rewards["brief"], Ensemble)
    # form: 1 * 2 and 0 * 2; brief: "a a b" has 3 words for 2 and 5 characters for 4, "a a" 2 and 3
    assert reward(prompts=["p", "p"], completions=["a a b", "a a"]) == [2 - 10 * 0.5, 0 - 10 * 0.25]
    assert reward(prompts=[], completions=[]) == []


def test_a_mistake_in_a_nested_block_is_named_by_its_place():
    block = {"kind": "composite", "rewards": {"form": {"kind": "composite", "rewards": {"x": {"kind": "lenght"}}}}}
    with pytest.raises(RecipeError) as caught:
        schema.check_reward(block, ("rewards", "mix"))
    assert caught.value.path == ("rewards", "mix", "rewards", "form", "rewards", "x", "kind")
    with pytest.raises(RecipeError, match=r"rewards.mix: composite: gate: no part 'forn', did you mean 'form'"):
        schema.check_reward({**BLOCK, "gate": "forn"}, ("rewards", "mix"))
