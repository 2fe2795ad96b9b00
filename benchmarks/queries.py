"""Which pairs are worth a label: the posterior rule and disagreement against random pairs at the same price.

    python benchmarks/queries.py                         # the bandit, a minute; save=yes keeps the numbers
    python benchmarks/queries.py pool=answers                                     # which two of ten answers meet
    python benchmarks/queries.py pool=world seeds=20
    python benchmarks/queries.py pool=rows train=hh.train.jsonl.gz test=hh.test.jsonl.gz    # preferences by people

A Bradley-Terry head with ridge 1 on frozen features learns from labels that a rule asks for, in rounds of a fifth of
what has been asked (25 at first, which are random for all). `posterior` takes the widest pairs, each as if those
before had been labelled; `disagreement` those on which five heads differ most that were fitted to resampled labels;
`random` is the control. Pools:

- bandit: 2,000 pairs of normal features in 10 dimensions, labels by a Bradley-Terry rater with a head of its own.
- answers: prompts of the bandit with ten answers each, all asked about once. The rules are which two meet: `random`
  ones, `thompson`'s (the best by one draw of the posterior and the best other one by a second), and `before` (the best
  by one draw against that of the head as it was a refit ago).
- world: pairs of answers of the tiny world, labels by its true reward with the noise of `kind: world`.
- rows: preference files; the labels are hidden until they are asked for.

Features of texts are word counts, hashed into 96 dimensions, length, and the share of the prompt's words that come
again. `accuracy` is the share of held-out pairs that the head orders as the truth does (in `rows` as people have);
`regret` is how much worse than the best of ten held-out answers the head's choice is, in standard deviations of the
true scores. Both are means over seeds of the gap to random of the same seed, with standard errors; the column of
random has its own mean.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np
import stored_numbers

from trimtab.pipelines.algorithms import queries
from trimtab.pipelines.data import tiny_world
from trimtab.rewards import text
from trimtab.rewards.gold import Gold

RULES = ("random", "posterior", "disagreement")
MEETINGS = ("random", "thompson", "before")
BUDGETS = (50, 100, 200, 400)
FIRST, SHARE, MEMBERS, HASHED = 25, 5, 5, 96


@dataclass
class Pool:
    """Gaps of features and labels (1: the first is better) to ask for, the same held out, and answers to choose from.

    `choices` are features (prompts, 10, d) and `scores` their true scores (prompts, 10), where the truth is known.
    """

    gaps: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray
    truth: np.ndarray
    choices: np.ndarray | None = None
    scores: np.ndarray | None = None


def bandit(seed: int) -> Pool:
    rng = np.random.default_rng(seed)
    head = 3 * rng.standard_normal(10)

    def features(*shape: int) -> np.ndarray:
        return rng.standard_normal((*shape, 10)) / np.sqrt(10)

    gaps, held_out, choices = features(2000) - features(2000), features(1000) - features(1000), features(200, 10)
    labels = rng.random(2000) < 1 / (1 + np.exp(-gaps @ head))
    return Pool(gaps, labels.astype(float), held_out, held_out @ head > 0, choices, choices @ head)


def meet(rule: str, seed: int) -> dict[int, dict[str, float]]:
    """What a head is worth after each budget, when a rule says which two of a prompt's answers are labelled."""
    pool, rng = bandit(seed), np.random.default_rng([seed, 1])
    head = 3 * np.random.default_rng(seed).standard_normal(10)  # as of the pool
    posterior, before = queries.Posterior(10), np.zeros(10)
    gaps, labels, worth = np.zeros((0, 10)), np.zeros(0), {}
    while len(gaps) < max(BUDGETS):
        for _ in range(FIRST):
            answers = rng.standard_normal((10, 10)) / np.sqrt(10)
            one, two = rng.choice(10, 2, replace=False)
            if rule != "random" and len(labels):
                others = answers @ (before if rule == "before" else posterior.draw(rng))
                one, two = queries.contenders(answers @ posterior.draw(rng), others)
            gap = answers[one] - answers[two]
            gaps = np.vstack([gaps, gap])
            labels = np.append(labels, float(rng.random() < 1 / (1 + np.exp(-gap @ head))))
        before = posterior.mean
        posterior.fit(gaps, labels)
        if len(gaps) in BUDGETS:
            worth[len(gaps)] = _worth(pool, posterior.mean)
    return worth


def world(seed: int) -> Pool:
    rng, gold = Random(seed), Gold()
    asked, tested = tiny_world.prompts(rng, 1500, 400)

    def answered(prompts: list, count: int) -> tuple[np.ndarray, np.ndarray]:
        answers = [[tiny_world.answer(prompt, rng) for _ in range(count)] for prompt in prompts]
        scores = [gold([str(prompt)] * count, said) for prompt, said in zip(prompts, answers, strict=True)]
        return _features([(str(prompt), one) for prompt, said in zip(prompts, answers, strict=True) for one in said],
                         count), np.array(scores, float)  # fmt: skip

    (pairs, scores), (choices, true) = answered(asked, 2), answered(tested, 10)
    units = pairs.reshape(-1, pairs.shape[-1]).std(0) + 1e-9
    spread = 0.25 * scores.std()
    labels = [tiny_world.prefers(first, second, spread, rng) for first, second in scores]
    scale = np.sqrt(pairs.shape[-1]) * units
    held_out = (choices[:, 0] - choices[:, 1]) / scale
    different = true[:, 0] != true[:, 1]
    return Pool(
        (pairs[:, 0] - pairs[:, 1]) / scale,
        np.array(labels, float),
        held_out[different],
        (true[:, 0] > true[:, 1])[different],
        choices / scale,
        true,
    )


def rows(train: str, test: str) -> Callable[[int], Pool]:
    def read(path: str) -> np.ndarray:
        with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
            said = [json.loads(line) for line in file]
        return _features(
            [(text(row["prompt"]), text(row[name])) for row in said for name in ("chosen", "rejected")], 2
        )

    asked, held_out = read(train), read(test)
    scale = np.sqrt(asked.shape[-1]) * (asked.reshape(-1, asked.shape[-1]).std(0) + 1e-9)
    gaps, tested = ((pairs[:, 0] - pairs[:, 1]) / scale for pairs in (asked, held_out))

    def pool(seed: int) -> Pool:
        signs = np.where(np.random.default_rng(seed).random(len(gaps)) < 0.5, 1.0, -1.0)
        return Pool(gaps * signs[:, None], (signs > 0).astype(float), tested, np.ones(len(tested), bool))

    return pool


def learn(pool: Pool, rule: str, seed: int) -> dict[int, dict[str, float]]:
    """What a head is worth after each budget."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool.gaps)).tolist()
    asked = order[:FIRST]
    posterior = queries.Posterior(pool.gaps.shape[1])
    worth = {}
    while True:
        posterior.fit(pool.gaps[asked], pool.labels[asked])
        if len(asked) in BUDGETS:
            worth[len(asked)] = _worth(pool, posterior.mean)
        if len(asked) >= max(BUDGETS):
            return worth
        taken = set(asked)
        left = [number for number in order if number not in taken]
        target = next(budget for budget in BUDGETS if budget > len(asked))
        count = min(max(1, len(asked) // SHARE), target - len(asked))
        gaps = pool.gaps[left]
        if rule == "posterior":
            chosen = queries.widest(posterior, gaps, count)
        elif rule == "disagreement":
            heads = []
            for _ in range(MEMBERS):
                again = rng.choice(asked, len(asked))
                member = queries.Posterior(pool.gaps.shape[1])
                member.fit(pool.gaps[again], pool.labels[again])
                heads.append(member.mean)
            differ = [queries.disagreement(row) for row in (gaps @ np.array(heads).T).tolist()]
            chosen = np.argsort(-np.array(differ), kind="stable")[:count].tolist()
        else:
            chosen = list(range(count))
        asked = asked + [left[number] for number in chosen]


def _worth(pool: Pool, head: np.ndarray) -> dict[str, float]:
    worth = {"accuracy": float(((pool.held_out @ head > 0) == pool.truth).mean())}
    if pool.choices is not None and pool.scores is not None:
        chosen = (pool.choices @ head).argmax(1)
        lost = pool.scores.max(1) - pool.scores[np.arange(len(chosen)), chosen]
        worth["regret"] = float(lost.mean() / pool.scores.std())
    return worth


def _features(said: list[tuple[str, str]], answers: int) -> np.ndarray:
    """(prompts, answers, d) of (prompt, answer) in that order."""
    table = np.zeros((len(said), HASHED + 3))
    for row, (prompt, answer) in zip(table, said, strict=True):
        words = re.findall(r"\w+", answer.lower())
        for word in words:
            row[zlib.crc32(word.encode()) % HASHED] += 1
        row[:HASHED] = np.sqrt(row[:HASHED])
        of_prompt = set(re.findall(r"\w+", prompt.lower()))
        row[HASHED:] = np.log1p(len(words)), len(set(words)) / max(1, len(words)), len(of_prompt & set(words)) ** 0.5
    return table.reshape(-1, answers, table.shape[1])


def main(pool: str = "bandit", seeds: str = "20", train: str = "", test: str = "", save: str = "no") -> None:
    rules = MEETINGS if pool == "answers" else RULES
    worth: dict[str, list[dict[int, dict[str, float]]]] = {rule: [] for rule in rules}
    asking = rows(train, test) if pool == "rows" else {"bandit": bandit, "world": world, "answers": bandit}[pool]
    for seed in range(int(seeds)):
        pairs = asking(seed)
        for rule in rules:
            worth[rule].append(meet(rule, seed) if pool == "answers" else learn(pairs, rule, seed))
    table: list[dict[str, Any]] = []
    for measure, budget in product(worth["random"][0][BUDGETS[0]], BUDGETS):
        of_rules = {rule: [one[budget][measure] for one in worth[rule]] for rule in rules}
        random = of_rules.pop("random")
        gaps = {f"{rule} - random": np.subtract(values, random).tolist() for rule, values in of_rules.items()}
        table.append({"measure": measure, "labels": budget, "random": random, **gaps})
    stored_numbers.show(f"queries-{pool}", {"worth": table}, seeds=seeds)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
