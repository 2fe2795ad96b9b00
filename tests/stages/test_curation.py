"""Curation: the theorems on tabular models, the frequencies of its choices, and the stage `curate`.

Ferbach et al. 2024 (https://arxiv.org/abs/2407.09499).
"""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from run_steps import run_recipe, write_recipe
from trimtab.pipelines.algorithms import curation, tabular
from trimtab.pipelines.recording import artifacts
from trimtab.scripts import train

ROUNDING = 1e-12  # relative to the rewards' scale, which is about 1


def instances(seed, count=400, sizes=((2, 2), (3, 3), (4, 3), (5, 4))):
    """(p, r, K) of `count` random models for each number of answers n and of completions K; some rewards are tied."""
    rng = np.random.default_rng(seed)
    for n, k in sizes:
        p = rng.dirichlet(np.full(n, 0.5), count) + 1e-6
        reward = rng.uniform(0.1, 3, (count, 1)) * rng.standard_normal((count, n))
        reward[::4, 0] = reward[::4, 1]
        yield p / p.sum(-1, keepdims=True), reward, k


def mean(p, values):
    return (p * values).sum(-1)


def test_c1_every_round_adds_the_guaranteed_increment_and_no_reward_is_lost():
    checked = 0
    for p, reward, k in instances(0):
        w = np.exp(reward)
        for _ in range(3):
            new = curation.retrain(p, reward, k)
            slack = mean(new, w) - mean(p, w) - curation.guaranteed(p, reward, k)
            assert (slack >= -ROUNDING * w.max(-1)).all()
            assert (mean(new, reward) >= mean(p, reward) - ROUNDING * np.abs(reward).max(-1)).all()
            p, checked = new, checked + len(p)
    assert checked >= 1000


def test_c2_the_limit_is_the_first_model_on_the_best_answers():
    p = first = np.array([0.05, 0.15, 0.3, 0.5])
    reward = np.array([1.0, 1.0, 0.2, -1.0])
    limit = np.array([0.25, 0.75, 0.0, 0.0])
    for k in (2, 4):
        p = first
        for _ in range(100):
            p = curation.retrain(p, reward, k)
        np.testing.assert_allclose(p, limit, atol=1e-6)


def test_c3_with_real_data_the_gain_stays_and_the_distance_is_bounded():
    checked = bounded = 0
    for reference, reward, k in instances(1):
        w = np.exp(reward)
        for ratio in (0.9 / (k - 1), 0.3 / (k - 1), 2.0):
            p, bound = reference, curation.divergence_bound(k, ratio)
            gain = curation.guaranteed(reference, reward, k, ratio)
            for _ in range(6):
                p = curation.retrain(p, reward, k, ratio, reference)
                assert (mean(p, w) - mean(reference, w) >= gain - ROUNDING * w.max(-1)).all()
                assert (tabular.kl(np.log(p), np.log(reference)) <= bound + ROUNDING).all()
                checked, bounded = checked + len(p), bounded + len(p) * math.isfinite(bound)
    assert min(checked, bounded) >= 1000
    assert math.isinf(curation.divergence_bound(3, 0.5))


def test_c4_of_two_the_advantage_is_twice_the_chance_to_win():
    for p, reward, _ in instances(2):
        beats = 1 / (1 + np.exp(reward[..., None, :] - reward[..., :, None]))
        expected = 2 * (p[..., None, :] * beats).sum(-1)
        np.testing.assert_allclose(curation.advantage(p, reward, 2), expected, atol=1e-12, rtol=0)


def test_the_advantage_averages_one_and_tends_to_the_tilted_model():
    for p, reward, k in instances(3, count=100):
        h = curation.advantage(p, reward, k)
        np.testing.assert_allclose(mean(p, h), 1, atol=1e-12)
        assert (h > 0).all()
        assert (h <= k).all()
    p, reward = np.array([0.3, 0.7]), np.array([1.0, 0.0])
    tilted = np.exp(reward) / mean(p, np.exp(reward))
    far = [np.abs(curation.advantage(p, reward, k) - tilted).max() for k in (2, 6, 12)]
    assert far[0] > far[1] > far[2]


def test_the_increment_of_a_sample_is_the_theorems():
    """A prompt's K scores are a model of their own: expected is exact, and never below guaranteed."""
    rng = np.random.default_rng(4)
    for _ in range(1000):
        scores = rng.normal(0, 2, rng.integers(1, 7))
        w, expected, guaranteed = curation.increments(scores, 0.7)
        assert expected == pytest.approx(w @ curation.probabilities(scores, 0.7) - w.mean(), abs=1e-12)
        assert expected >= guaranteed - 1e-15


def chi_square(found, expected):
    """The statistic in units of its standard deviation away from its mean: below 4 if the frequencies are right."""
    degrees = len(expected) - 1
    statistic = sum((found[key] - count) ** 2 / count for key, count in expected.items())
    return (statistic - degrees) / math.sqrt(2 * degrees)


SCORES = [0.3, -1.0, 1.2, 0.3]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_choices_have_plackett_luce_frequencies(keep, temperature):
    draws = 20_000
    found = Counter(tuple(curation.choose(SCORES, keep, temperature, f"{keep}-{n}")) for n in range(draws))
    weights = np.exp(np.array(SCORES) / temperature)
    expected = {}
    for order in itertools.permutations(range(len(SCORES)), keep):
        left = [weights.sum() - weights[list(order[:at])].sum() for at in range(keep)]
        expected[order] = draws * math.prod(weights[i] / rest for i, rest in zip(order, left, strict=True))
        assert math.prod(curation.turns(SCORES, order, temperature)) * draws == pytest.approx(expected[order])
    assert set(found) <= set(expected)
    assert chi_square(found, expected) < 4
    if keep == 1:
        np.testing.assert_allclose(curation.probabilities(SCORES, temperature), weights / weights.sum(), rtol=1e-12)


def test_the_limits_of_the_temperature():
    best = Counter(curation.choose([1.0, 5.0, 5.0, 0.0], 1, 0.0, str(n))[0] for n in range(2000))
    assert chi_square(best, {1: 1000, 2: 1000}) < 4
    assert curation.choose([1.0, 5.0, 4.9, 7.0], 3, 0.0, "any") == [3, 1, 2]
    assert curation.choose([1.0, 5.0, 4.9, 7.0], 3, 1e-320, "any") == [3, 1, 2]
    anyone = Counter(tuple(curation.choose([0.0, 50.0, 1.0], 2, math.inf, str(n))) for n in range(3000))
    assert chi_square(anyone, dict.fromkeys(itertools.permutations(range(3), 2), 500)) < 4
    assert curation.probabilities([1.0, 5.0, 5.0], 0.0).tolist() == [0, 0.5, 0.5]
    assert curation.entropy(curation.probabilities([1.0, 9.0, 3.0], math.inf)) == pytest.approx(math.log(3))
    assert curation.entropy(curation.probabilities([1.0, 9.0], 0.0)) == 0


def test_a_choice_depends_on_its_seed_only():
    first = curation.choose(SCORES, 2, 1.0, "42-0-7")
    assert (
        first == curation.choose(SCORES, 2, 1.0, "42-0-7") == curation.choose([s + 5 for s in SCORES], 2, 1, "42-0-7")
    )
    assert len({tuple(curation.choose(SCORES, 2, 1.0, f"42-0-{n}")) for n in range(50)}) > 5


@pytest.mark.parametrize(
    ("scores", "keep", "temperature"),
    [
        ([], 1, 1.0),
        ([1.0], 2, 1.0),
        ([math.nan], 1, 1.0),
        ([math.inf, 0.0], 1, 1.0),
        ([1.0], 1, -1),
        ([1], 1, math.nan),
    ],
)
def test_what_cannot_be_chosen_from(scores, keep, temperature):
    with pytest.raises(ValueError, match=r"expected finite|cannot keep|at least 0"):
        curation.choose(scores, keep, temperature, "seed")


def test_equal_and_nearly_equal_examples():
    long = "The quick brown fox jumps over the lazy dog, and then it does so again and again until nightfall."
    examples = [("q", long), ("q", long), ("q", long.replace("nightfall", "Nightfall!")), ("other question", long),
                ("2 + 2?", "4"), ("3 + 1?", "4"), ("q", "something else entirely")]  # fmt: skip
    assert curation.duplicates(examples) == [None, "exact", *[None] * 5]
    assert curation.duplicates(examples, 0.8) == [None, "exact", "near", *[None] * 4]
    assert curation.duplicates(examples, 1.0) == [None, "exact", *[None] * 5]


def test_a_prompt_is_held_out_when_it_equals_or_quotes_one():
    words = [f"word{n}" for n in range(20)]
    held_out = curation.HeldOut(["What is 1+1?", " ".join(words)])
    assert "what is  1+1?" in held_out
    assert "What is 1-1?" not in held_out
    assert "Tell me what is 1+1? Please." not in held_out  # too short to be a quotation
    assert f"Please: {', '.join(words[3:16])}!" in held_out
    assert " ".join(words[3:15]) not in held_out


K = 3
COMMON = "please answer with great care and in full sentences about the topic of number"


def scored(prompts=6):
    """Rows as `score` leaves them: sample k of prompt i scores k, but sample 0 of the last prompt has abstained."""
    return [
        {
            "prompt": [{"role": "system", "content": COMMON}, {"role": "user", "content": f"say {i}"}],
            "completion": [{"role": "assistant", "content": f"a {i} b {k}"}],
            "prompt_index": i,
            "sample_index": k,
            "scores": {"good": None if (i, k) == (prompts - 1, 0) else float(k), "flat": 0.0},
            "logprobs": [-1.0],
        }
        for i in range(prompts)
        for k in range(K)
    ]


@pytest.fixture
def curate(tmp_path, write):
    """Runs the stage on rows of `scored`, or others; returns (rows, metrics)."""

    def curate(rows=None, seed=42, **options):
        block = {"completions": write("scored.jsonl", rows or scored()), "reward": "good", **options}
        block = {key: value for key, value in block.items() if value is not None}
        step = run_recipe(tmp_path, {"curate": block}, seed=seed)["curate"]
        return pq.read_table(step.output / "train.parquet").to_pylist(), artifacts.read_done(step.dir)["metrics"]

    return curate


@pytest.fixture
def refused(tmp_path, write, capsys):
    """Runs the stage, which must end with a mistake in the recipe, and returns what is said."""

    def refused(**options):
        block = {"completions": write("scored.jsonl", scored()), "reward": "good", **options}
        block = {key: value for key, value in block.items() if value is not None}
        assert train.main([str(write_recipe(tmp_path, {"curate": block}, wandb=False))]) == 2
        return capsys.readouterr().err

    return refused


def test_rows_say_where_they_come_from(curate):
    rows, metrics = curate(temperature=2.0, round=3, policy="policy-1")
    assert [row["prompt_index"] for row in rows] == list(range(6))
    for row in rows:
        scores = [1.0, 2.0] if row["prompt_index"] == 5 else [0.0, 1.0, 2.0]
        assert row["prompt"][1]["content"] == f"say {row['prompt_index']}"
        assert row["completion"][0]["content"] == f"a {row['prompt_index']} b {row['sample_index']}"
        assert (row["score"], row["rank"]) == (row["sample_index"], K - row["sample_index"])
        chance = math.exp(row["score"] / 2) / sum(math.exp(score / 2) for score in scores)
        assert row["probability"] == pytest.approx(chance)
        assert (row["round"], row["policy"], row["chosen_by"]) == (3, "policy-1", "reward")
        assert set(row) == {"prompt", "completion", "prompt_index", "sample_index", "score", "round", "policy", "rank",
                            "probability", "chosen_by"}  # fmt: skip
    assert (metrics["prompts"], metrics["completions"], metrics["kept"], metrics["unscored_dropped"]) == (6, 18, 6, 1)
    assert metrics["reward/kept"] == pytest.approx(np.mean([row["score"] for row in rows]))
    assert metrics["reward/all"] == pytest.approx((5 * 1.0 + 1.5) / 6)
    assert metrics["increment/expected"] > metrics["increment/guaranteed"] > 0
    three, two = (curation.entropy(curation.probabilities(s, 2.0)) for s in ([0, 1, 2], [1, 2]))
    assert metrics["entropy"] == pytest.approx((5 * three + two) / 6)
    assert metrics["entropy_share"] == pytest.approx((5 * three / math.log(3) + two / math.log(2)) / 6)


def test_many_prompts_gain_what_they_should(curate):
    _, metrics = curate(scored(400))
    error = metrics["increment/realised"] - metrics["increment/expected"]
    assert abs(error) < 4 * metrics["increment/stderr"]
    assert metrics["increment/realised"] > metrics["increment/guaranteed"]


def test_the_same_seed_chooses_the_same_and_another_round_does_not(curate):
    many = scored(40)
    first, _ = curate(many)
    again, _ = curate(list(reversed(many)))
    assert again == first
    samples = {row["prompt_index"]: row["sample_index"] for row in first}
    other, _ = curate(many, seed=43)
    later, _ = curate(many, round=1)
    for rows in (other, later):
        assert {row["prompt_index"]: row["sample_index"] for row in rows} != samples


def test_temperatures_and_several_kept(curate):
    rows, metrics = curate(temperature=0, keep=2)
    assert [row["sample_index"] for row in rows] == [2, 1] * 6
    assert [row["rank"] for row in rows] == [1, 2] * 6
    assert [row["probability"] for row in rows] == [1.0] * 12
    assert (metrics["entropy"], metrics["reward/kept"]) == (0, 1.5)
    assert not any(key.startswith("increment") for key in metrics)
    rows, metrics = curate(temperature=math.inf)
    assert [row["probability"] for row in rows] == pytest.approx([1 / 3] * 5 + [1 / 2])
    assert metrics["entropy_share"] == pytest.approx(1)
    rows, _ = curate(reward={"good": -1.0, "flat": 7.0}, temperature=0)
    assert [row["sample_index"] for row in rows] == [0, 0, 0, 0, 0, 1]


def test_choices_made_elsewhere(curate, write):
    choices = write("choices.jsonl", [{"prompt_index": i, **({"choice": 0} if i % 2 else {"ranking": [1, 0]})}
                                      for i in range(6)])  # fmt: skip
    rows, metrics = curate(choices=choices)
    assert [row["sample_index"] for row in rows] == [1, 0] * 3
    assert {(row["rank"], row["probability"], row["chosen_by"]) for row in rows} == {(1, None, "choice")}
    assert metrics["reward/kept"] == pytest.approx((1 + 0 + 1 + 0 + 1) / 5)  # one was chosen that has no score
    assert metrics["missing_choices"] == 0
    rows, metrics = curate(choices=choices, reward=None)
    assert [row["score"] for row in rows] == [None] * 6
    assert "reward/kept" not in metrics
    rankings = write("rankings.jsonl", [{"prompt_index": i, "ranking": [1, 2, 0]} for i in range(6)])
    rows, _ = curate(choices=rankings, keep=2)
    assert [(row["sample_index"], row["rank"]) for row in rows] == [(1, 1), (2, 2)] * 6


def test_prompts_without_a_choice(curate, refused, write):
    choices = write("choices.jsonl", [{"prompt_index": i, "choice": 0} for i in (0, 3)])
    assert "no choice for 4 of 6 prompts, prompt_index 1, 2, 4, 5: add them, or set" in refused(choices=choices)
    rows, metrics = curate(choices=choices, missing_choices="reward", temperature=0)
    assert [row["sample_index"] for row in rows] == [0, 2, 2, 0, 2, 2]
    assert [row["chosen_by"] for row in rows] == ["choice", "reward", "reward", "choice", "reward", "reward"]
    assert metrics["missing_choices"] == 4
    rows, metrics = curate(choices=choices, missing_choices="drop", reward=None)
    assert [row["prompt_index"] for row in rows] == [0, 3]
    assert (metrics["missing_choices"], metrics["kept"]) == (4, 2)


@pytest.mark.parametrize(
    ("row", "message", "keep"),
    [
        ({"prompt_index": 9, "choice": 0}, "no prompt_index 9 among the completions", 1),
        ({"prompt_index": 0, "choice": 1}, "a second choice for prompt_index 0", 1),
        ({"prompt_index": 1, "chosen": 1}, "expected either `choice` or `ranking`, got neither", 1),
        (
            {"prompt_index": 1, "choice": 1, "ranking": [1]},
            "expected either `choice` or `ranking`, got choice and ranking",
            1,
        ),
        ({"prompt_index": 1, "choice": 3}, "no sample_index 3 for prompt_index 1 (there are [0, 1, 2])", 1),
        ({"prompt_index": 1, "ranking": [1, 5]}, "no sample_index 5 for prompt_index 1", 1),
        ({"prompt_index": 1, "ranking": [1, 1]}, "`ranking` [1, 1] has a sample_index twice", 1),
        ({"prompt_index": 1, "choice": 1}, "names 1 of the 2 to keep: give a longer `ranking`", 2),
    ],
)
def test_a_wrong_choice_is_named(refused, write, row, message, keep):
    choices = write("choices.jsonl", [{"prompt_index": 0, "ranking": [0, 1]}, row])
    error = refused(choices=choices, missing_choices="reward", keep=keep)
    assert "stages.curate.choices" in error
    assert f"choices.jsonl, row 1: {message}" in error.replace("\n", " ")


def test_choices_of_the_wrong_type(refused, write):
    for value, message in (({"choice": "a"}, "no sample_index 'a'"), ({"ranking": 2}, "`ranking` is 2, expected a l")):
        error = refused(choices=write("typed.jsonl", [{"prompt_index": 0, **value}]), missing_choices="drop")
        assert f"row 0: {message}" in error
    assert "'prompt_index'" in refused(choices=write("unnamed.jsonl", [{"prompt": 0, "choice": 1}]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature: must be at least 0, got -1"),
        ({"temperature": math.nan}, "temperature: must be at least 0, got nan"),
        ({"keep": 0}, "keep: must be at least 1, got 0"),
        ({"deduplicate": 1.5}, "deduplicate: must be above 0 and at most 1, got 1.5"),
        ({"reward": None}, "name the reward that chooses, or give `choices`"),
        ({"reward": "goood"}, "no reward 'goood' in the scores (flat, good)"),
        ({"missing_choices": "guess"}, "expected one of stop, reward, drop"),
    ],
)
def test_mistakes_are_named(refused, options, message):
    assert message in refused(**options)


def test_duplicates_are_counted_and_dropped_when_asked(curate):
    rows = scored()
    sentence = "a sentence that is long enough to be nearly the same as another one, whatever its number"
    for row in rows:
        kind = row["prompt_index"] // 2  # two prompts with equal answers, two with similar ones, two with others
        row["prompt"] = [{"role": "user", "content": f"say {kind}"}]
        number = {0: "", 1: str(row["prompt_index"]), 2: ("apples", "pears")[row["prompt_index"] % 2]}[kind]
        row["completion"][0]["content"] = number if kind == 2 else f"{sentence} {number}"
    found, metrics = curate(rows, temperature=0)
    assert (len(found), metrics["exact_duplicates"], metrics["near_duplicates"]) == (6, 1, 0)
    found, metrics = curate(rows, temperature=0, deduplicate=0.8)
    assert [row["prompt_index"] for row in found] == [0, 2, 4, 5]
    assert (metrics["kept"], metrics["exact_duplicates"], metrics["near_duplicates"]) == (4, 1, 1)


def test_two_samplings_in_one_are_refused(write, refused):
    assert "prompt_index 0 has sample_index 0 twice" in refused(completions=write("twice.jsonl", scored() * 2))


def test_evaluation_prompts_are_left_out(curate, refused, write):
    """A system message that all prompts have in common is not what is compared."""
    system = {"role": "system", "content": COMMON}
    tests = [{"prompt": [system, {"role": "user", "content": text}]} for text in ("Say  3", "say 77")]
    rows, metrics = curate(decontaminate=write("test.jsonl", tests))
    assert [row["prompt_index"] for row in rows] == [0, 1, 2, 4, 5]
    assert metrics["contaminated_dropped"] == 1
    everything = write("all.jsonl", [{"prompt": f"say {i}"} for i in range(6)])
    assert "nothing is left of 6 prompts" in refused(decontaminate=everything)


def test_what_was_sampled_is_scored_curated_and_trained_on(model, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": [{"role": "user", "content": f"say {i}"}]}) + "\n"
                               for i in range(6)))  # fmt: skip
    options = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "gradient_checkpointing": False,
    }
    steps = run_recipe(tmp_path, {
        "sample": {"model": {"model_name_or_path": model}, "prompts": str(prompts), "num_generations": 3,
                   "generate": {"max_new_tokens": 6}},
        "score": {"completions": "$sample", "rewards": {"brief": {"kind": "length", "target": 3}}},
        "curate": {"completions": "$score", "reward": "brief", "round": 1, "policy": "$sample"},
        "sft": {"model": {"model_name_or_path": model}, "data": "$curate", "train": options},
    })  # fmt: skip
    rows = pq.read_table(steps["curate"].output / "train.parquet").to_pylist()
    assert [row["prompt_index"] for row in rows] == list(range(6))
    assert {row["policy"] for row in rows} == {str(steps["sample"].output)}
    assert artifacts.read_done(steps["sft"].dir)["metrics"]["train/steps"] == 2


def test_openings_are_the_first_words_and_lose_nothing(tmp_path, write):
    texts = ["Once upon a time there was", "two words", "\n one  two\tthree four.", "a b c"]
    steps = run_recipe(
        tmp_path, {"openings": {"data": write("t.jsonl", [{"text": text} for text in texts]), "words": 3}}
    )
    rows = pq.read_table(steps["openings"].output / "train.parquet").to_pylist()
    assert [row["prompt"] + row["completion"] for row in rows] == [texts[0], texts[2]]
    assert [row["prompt"] for row in rows] == ["Once upon a", "\n one  two\tthree"]
    assert artifacts.read_done(steps["openings"].dir)["metrics"]["too_short"] == 2


def test_texts_that_are_all_too_short_are_an_error(tmp_path, write, capsys):
    path = write_recipe(tmp_path, {"openings": {"data": write("t.jsonl", [{"text": "a b"}]), "words": 2}}, wandb=False)
    assert train.main([str(path)]) == 2
    assert "none of 1 texts has more than 2 words" in capsys.readouterr().err
