"""The tiny world: its data is reproducible and split cleanly, its gold reward is exact and can be over-optimised."""

import math
from itertools import chain, pairwise
from random import Random

import pytest

from trimtab.pipelines.data import tiny_world
from trimtab.rewards.gold import Gold, parts

ASKED = "Tell me about beans, oats and peas. Be polite. Use at most 24 words."
PLAIN = "Tell me about beans, oats and peas. Be plain. Use at most 24 words."
GOOD = "I am glad to help. The beans are green. The oats need some rain. The peas are round."


def drawn(seed: int) -> tuple[list[str], list[str], list[str]]:
    rng = Random(seed)
    train, test = tiny_world.prompts(rng, 300, 100)
    return [str(p) for p in train], [str(p) for p in test], [tiny_world.answer(p, rng) for p in train]


def test_the_seed_decides_everything():
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_train_and_test_name_different_sets_of_items():
    train, test = tiny_world.prompts(Random(0), 3000, 300)
    assert not {frozenset(p.items) for p in train} & {frozenset(p.items) for p in test}
    assert len(set(map(str, train + test))) == 3300


def test_the_vocabulary_is_a_few_hundred_words_and_closed():
    known = tiny_world.vocabulary()
    assert 300 < len(known) < 600
    prompts, _, answers = drawn(0)
    said = {word for text in prompts + answers for word in text.lower().replace(",", "").replace(".", "").split()}
    assert {word for word in said if not word.isdigit()} <= known


def test_gold_reads_every_sentence_of_the_world():
    for sentence in chain(tiny_world.COURTESIES, tiny_world.RUDE, tiny_world.FILLER, *tiny_world.FACTS.values()):
        part = parts(ASKED, sentence)
        assert part["structure"] == 1, sentence
        assert part["politeness"] == (sentence in tiny_world.COURTESIES) - (sentence in tiny_world.RUDE), sentence


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        (ASKED, GOOD, {"covered": 1, "tone": 1, "length": 1, "variety": 1, "structure": 1, "overall": 1}),
        (ASKED, GOOD, {"coverage": 1 + math.log2(4), "politeness": 1}),
        (PLAIN, GOOD, {"tone": 0.5, "overall": 1 - 0.4 / 2}),
        (ASKED, "The beans are green. You bore me.", {"covered": 1 / 3, "tone": 0, "politeness": -1}),
        (ASKED, "The beans are. green are The", {"covered": 0, "structure": 0}),
        (ASKED, "The cats are proud.", {"covered": 0, "structure": 1, "overall": 0, "coverage": 0}),
        (ASKED, "The beans are green. The beans are green.", {"variety": 4 / 6, "coverage": 1 / 3 + math.log2(3)}),
        (ASKED, "I hope this helps you. " * 6, {"length": 0.5, "tone": 0.5**4, "politeness": math.log2(7)}),
        (ASKED, "", {"overall": 0, "variety": 0, "structure": 0, "coverage": 0, "politeness": 0}),
    ],
)
def test_parts_by_hand(prompt, answer, expected):
    part = parts(prompt, answer)
    assert {name: part[name] for name in expected} == pytest.approx(expected)


def test_gold_has_trls_signature_and_abstains_elsewhere():
    chat = [{"role": "user", "content": ASKED}], [{"role": "assistant", "content": GOOD}]
    assert Gold()(prompts=[chat[0], ASKED, "What is 2 + 2?"], completions=[chat[1], GOOD, "4"], answer=[0, 0, 4]) == [
        pytest.approx(1),
        pytest.approx(1),
        None,
    ]
    assert Gold(aspect="politeness")([ASKED], [GOOD]) == [1]
    with pytest.raises(ValueError, match="unknown aspect 'kindness'"):
        Gold(aspect="kindness")


@pytest.mark.parametrize(
    ("aspect", "additions"),
    [
        ("politeness", tiny_world.COURTESIES),
        ("coverage", [tiny_world.FACTS[item][i] for i in range(5) for item in ("beans", "oats", "peas")]),
    ],
)
def test_each_aspect_rises_for_ever_while_gold_peaks_and_falls(aspect, additions):
    start = "The beans are green. The peas are round." if aspect == "politeness" else "I am glad to help."
    curve = [parts(ASKED, " ".join([start, *additions[:count]])) for count in range(len(additions) + 1)]
    proxy, gold = [part[aspect] for part in curve], [part["overall"] for part in curve]
    assert all(later > earlier for earlier, later in pairwise(proxy))
    peak = gold.index(max(gold))
    assert 0 < peak < len(gold) - 1
    assert gold[-1] < 0.75 * gold[peak]


def test_better_answers_score_higher_but_none_of_the_qualities_is_pure():
    rng = Random(0)
    prompts, _ = tiny_world.prompts(rng, 600, 0)
    means = []
    for quality in (0, 0.5, 1):
        scores = [parts(str(p), tiny_world.answer(p, rng, quality))["overall"] for p in prompts]
        means.append(sum(scores) / len(scores))
        assert min(scores) < 0.6 < max(scores)
    assert means[0] + 0.1 < means[1] < means[2] - 0.1


@pytest.mark.parametrize(("gap", "temperature"), [(0.5, 1.0), (-1.0, 0.5), (0.2, 0.1), (0.0, 1.0)])
def test_noisy_choices_follow_bradley_terry(gap, temperature):
    rng, draws = Random(7), 20_000
    expected = 1 / (1 + math.exp(-gap / temperature))
    share = sum(tiny_world.prefers(gap, 0.0, temperature, rng) for _ in range(draws)) / draws
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)
    assert tiny_world.prefers(1e6, 0.0, 1e-6, rng)  # no overflow
    assert not tiny_world.prefers(-1e6, 0.0, 1e-6, rng)
