"""The stage `curate`: its rows and metrics, choices made elsewhere, and what it leaves out."""

import json
import math

import numpy as np
import pytest
from outputs import metrics_of, rows_of
from run_steps import run_recipe, write_recipe
from short_trainings import TRAIN

from trimtab.pipelines.algorithms import curation
from trimtab.scripts import train

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
        return rows_of(step), metrics_of(step)

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
        assert set(row) == {
            "prompt",
            "completion",
            "prompt_index",
            "sample_index",
            "score",
            "round",
            "policy",
            "rank",
            "probability",
            "chosen_by",
        }
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
    choices = write(
        "choices.jsonl", [{"prompt_index": i, **({"choice": 0} if i % 2 else {"ranking": [1, 0]})} for i in range(6)]
    )
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
        ({"temperature": math.nan}, "temperature: NaN is not a number"),
        ({"keep": 0}, "keep: must be at least 1, got 0"),
        ({"deduplicate": 1.5}, "deduplicate: must be above 0 and at most 1, got 1.5"),
        ({"reward": None}, "name the reward that chooses, or give `choices`"),
        ({"reward": "goood"}, "no reward 'goood' in the scores, did you mean 'good'? (there are: flat, good)"),
        ({"missing_choices": "guess"}, "expected one of stop, reward, drop"),
        ({"require": {"goood": 1}}, "curate.require: no reward 'goood' in the scores, did you mean 'good'?"),
        ({"reward": None, "choices": "chosen.jsonl", "require": {"good": 1}}, "and `choices` alone ask for none"),
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
    prompts.write_text(
        "".join(json.dumps({"prompt": [{"role": "user", "content": f"say {i}"}]}) + "\n" for i in range(6))
    )
    steps = run_recipe(
        tmp_path,
        {
            "sample": {
                "model": {"model_name_or_path": model},
                "prompts": str(prompts),
                "num_generations": 3,
                "generate": {"max_new_tokens": 6},
            },
            "score": {"completions": "$sample", "rewards": {"brief": {"kind": "length", "target": 3}}},
            "curate": {"completions": "$score", "reward": "brief", "round": 1, "policy": "$sample"},
            "sft": {"model": {"model_name_or_path": model}, "data": "$curate", "train": TRAIN},
        },
    )
    rows = rows_of(steps["curate"])
    assert [row["prompt_index"] for row in rows] == list(range(6))
    assert {row["policy"] for row in rows} == {str(steps["sample"].output)}
    assert metrics_of(steps["sft"])["train/steps"] == 2
