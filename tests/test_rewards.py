"""The contract of every file in rewards/, found by listing the folder, and each reward's own arithmetic."""

import math
from functools import partial

import pytest

from pipelines import plugins
from pipelines.errors import RecipeError

OPTIONS = {"length": {"target": 4}, "pattern": {"regex": "a+"}}
PROMPTS = ["Say a.", "Say b.", "Say a."]
COMPLETIONS = ["a a a a", "b b b b b b", ""]


def chat(role, texts):
    return [[{"role": role, "content": text}] for text in texts]


@pytest.fixture
def load(reward_model):
    def load(kind, **options):
        if kind == "reward_model":
            options.setdefault("path", reward_model)
        return plugins.load("rewards", {"kind": kind, **OPTIONS.get(kind, {}), **options})

    return load


@pytest.fixture(scope="module")
def reward_model(model, tmp_path_factory):
    """A sequence-classification checkpoint with a head, made from the tiny model."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("rm")
    AutoModelForSequenceClassification.from_pretrained(model, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", plugins.words("rewards"))
@pytest.mark.parametrize("form", ["strings", "messages"])
def test_contract(kind, form, load):
    reward = load(kind)
    if form == "strings":
        prompts, completions = PROMPTS, COMPLETIONS
    else:
        prompts, completions = chat("user", PROMPTS), chat("assistant", COMPLETIONS)
    columns = {"completion_ids": [[1, 2], [3], [4]], "label": ["x", "y", "z"], "trainer_state": None}
    scores = reward(prompts=prompts, completions=completions, **columns)
    assert len(scores) == 3
    assert all(score is None or (isinstance(score, float) and math.isfinite(score)) for score in scores)
    assert reward(prompts=prompts[:1], completions=completions[:1]) == pytest.approx(scores[:1], abs=1e-5)
    assert reward(prompts=[], completions=[]) == []


def test_length(load):
    assert load("length")(prompts=PROMPTS, completions=COMPLETIONS) == [0.0, -0.5, -1.0]
    assert load("length", at_most=True)(prompts=PROMPTS, completions=COMPLETIONS) == [0.0, -0.5, 0.0]
    assert load("length", unit="characters")(prompts=["p"], completions=["abcd"]) == [0.0]
    assert load("length", unit="tokens")(prompts=["p"], completions=["x"], completion_ids=[[1, 2]]) == [-0.5]


def test_pattern(load):
    assert load("pattern")(prompts=PROMPTS, completions=COMPLETIONS) == [1.0, 0.0, 0.0]
    assert load("pattern", absent=True)(prompts=PROMPTS, completions=COMPLETIONS) == [0.0, 1.0, 1.0]
    assert load("pattern", count=True)(prompts=PROMPTS, completions=COMPLETIONS) == [4.0, 0.0, 0.0]
    with pytest.raises(RecipeError, match="not a regular expression"):
        load("pattern", regex="(")


def test_repetition(load):
    scores = load("repetition", ngram_size=1)(prompts=["p", "p"], completions=["a b c d", "a a a a"])
    assert scores == [0.0, -0.75]


def test_reward_model_scores_do_not_depend_on_the_batch(load):
    prompts, completions = chat("user", PROMPTS), chat("assistant", COMPLETIONS)
    together = load("reward_model")(prompts=prompts, completions=completions)
    alone = load("reward_model", tokens_per_batch=1)(prompts=prompts, completions=completions)
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_language_model_is_not_a_reward_model(load, model):
    with pytest.raises(ValueError, match=r"has no trained head \(score.weight would be random\)"):
        load("reward_model", path=model)(prompts=["p"], completions=["c"])


def test_any_function_or_class_by_its_dotted_path(tmp_path, monkeypatch):
    (tmp_path / "team.py").write_text(
        "def constant(prompts, completions, value=1.0, **columns): return [value] * len(prompts)\n"
        "class Twice:\n"
        "    def __init__(self, value): self.value = value\n"
        "    def __call__(self, prompts, completions, **columns): return [2 * self.value] * len(prompts)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.load("rewards", {"kind": "team.constant"})(prompts=["p"], completions=["c"]) == [1.0]
    with_options = plugins.load("rewards", {"kind": "team.constant", "value": 3.0})
    assert isinstance(with_options, partial)
    assert with_options(prompts=["p"], completions=["c"]) == [3.0]
    assert plugins.load("rewards", {"kind": "team.Twice", "value": 2.0})(prompts=["p"], completions=["c"]) == [4.0]
    with pytest.raises(RecipeError, match="module team has no 'missing'"):
        plugins.load("rewards", {"kind": "team.missing"})


def test_rewards_work_as_trl_reward_functions(load, model, tmp_path):
    """The same objects go into TRL's GRPOTrainer unchanged."""
    import trl
    from datasets import Dataset

    args = trl.GRPOConfig(output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, num_generations=2,
                          max_completion_length=4, use_cpu=True, bf16=False, report_to="none",
                          gradient_checkpointing=False)  # fmt: skip
    data = Dataset.from_list([{"prompt": prompt} for prompt in chat("user", PROMPTS)])
    trainer = trl.GRPOTrainer(model=model, reward_funcs=load("length").__call__, args=args, train_dataset=data)
    trainer.train()
    assert any("rewards/__call__/mean" in row for row in trainer.state.log_history)
