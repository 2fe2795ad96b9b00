"""What cannot change a result is not in the fingerprint, and everything else is."""

import pytest
import yaml

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe

RECIPE = """
stages:
  sft:
    model: {model_name_or_path: org/model}
    data: org/data
    train: {learning_rate: 1e-5, logging_steps: 5, save_steps: 10}
  score:
    completions: org/completions
    rewards:
      helpful: {kind: reward_model, path: org/judge, device: cpu}
      server: {kind: remote, url: "http://host/x", timeout: 5}
      both: {kind: composite, rewards: {server: {kind: remote, url: "http://host/y", tries: 2}}}
"""


@pytest.fixture
def marks(tmp_path):
    """The fingerprints of the recipe with overrides, by step."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return lambda *overrides: {step.name: step.fingerprint for step in Recipe.load(str(path), overrides).steps}


@pytest.mark.parametrize(
    "override",
    [
        "stages.sft.train.logging_steps=7",
        "stages.sft.train.save_steps=3",
        "stages.sft.train.report_to=tensorboard",
        "stages.score.rewards.helpful.device=cuda:1",
        "stages.score.rewards.server.timeout=50",
        "stages.score.rewards.server.concurrency=2",
        "stages.score.rewards.both.rewards.server.tries=9",
        "name=another",
        "stages.sft.accelerate=ddp",
    ],
)
def test_what_cannot_change_the_result_is_outside(marks, override):
    assert marks() == marks(override)


@pytest.mark.parametrize(
    ("override", "step"),
    [
        ("stages.sft.train.learning_rate=2e-5", "sft"),
        ("stages.sft.train.load_best_model_at_end=true", "sft"),
        ("stages.sft.model.dtype=bfloat16", "sft"),
        ("stages.score.rewards.helpful.head=1", "score"),
        ("stages.score.rewards.server.url=http://other/x", "score"),
        ("stages.score.rewards.server.batch_size=3", "score"),
        ("stages.score.rewards.both.rewards.server.label=answer", "score"),
        ("stages.score.batch_size=3", "score"),
    ],
)
def test_everything_else_is_inside(marks, override, step):
    before, after = marks(), marks(override)
    assert [name for name in before if before[name] != after[name]] == [step]


def test_saving_matters_where_the_best_checkpoint_is_chosen(marks):
    best = "stages.sft.train.load_best_model_at_end=true"
    assert marks(best) != marks(best, "stages.sft.train.save_steps=3")


def test_the_source_of_a_users_function_is_a_part_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, recipe = tmp_path / "judge.py", tmp_path / "recipe.yaml"
    code.write_text("def judge(prompts, completions, **columns):\n    return [1.0] * len(completions)\n")
    reward = {"kind": "trl_function", "path": "judge.py:judge"}
    recipe.write_text(yaml.safe_dump({"stages": {"score": {"completions": "org/x", "rewards": {"judge": reward}}}}))
    before = Recipe.load(str(recipe)).steps[0].fingerprint
    assert Recipe.load(str(recipe)).steps[0].fingerprint == before
    code.write_text(code.read_text().replace("1.0", "2.0"))
    assert Recipe.load(str(recipe)).steps[0].fingerprint != before


def test_what_a_class_says_of_its_kind_is_no_option(marks, monkeypatch):
    """A new panel of the report retrains nothing, and `shows` is no key of a recipe."""
    from trimtab.pipelines.reporting.shows import Shows
    from trimtab.pipelines.stages.sft import Sft

    before = marks()
    monkeypatch.setattr(Sft, "shows", Shows({"Another panel": ("train/loss",)}))
    assert marks() == before
    with pytest.raises(RecipeError, match="unknown key for kind 'sft'"):
        marks("stages.sft.shows=1")
