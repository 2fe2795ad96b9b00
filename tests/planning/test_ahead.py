"""What is taken of steps that have still to run is known to be there, and to have the head that it needs."""

import pytest
from run_steps import write_recipe

from trimtab.pipelines.planning import preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe


def shape(width):
    return {"model_type": "llama", "hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2}  # fmt: skip


STAGES = {
    "world": {},
    "turns": {"kind": "dialogues", "data": "DIALOGUES"},
    "scratch": {"corpus": "$world/sft", "config": shape(32)},
    "wide": {"kind": "scratch", "corpus": "$world/sft", "config": shape(64)},
    "sft": {"model": {"model_name_or_path": "$scratch"}, "data": "$world/sft", "train": {}},
    "judge": {"kind": "reward", "model": {"model_name_or_path": "$sft"}, "data": "$world/coverage", "train": {}},
    "online": {
        "kind": "constrained",
        "method": "fixed",
        "model": {"model_name_or_path": "$sft"},
        "data": "$world/prompts",
        "rewards": {"judged": {"kind": "reward_model", "path": "$judge"}},
        "train": {},
    },
    "drawn": {"kind": "sample", "model": {"model_name_or_path": "$sft"}, "prompts": "$turns/prompts"},
    "ahead": {"kind": "extrapolate", "new": "$sft", "previous": "$scratch"},
}


def checked(folder, *overrides):
    (folder / "dialogues.jsonl").write_text('{"dialog": ["a", "b", "c"], "act": [0, 1, 0]}\n')
    given = f"stages.turns.data={folder}/dialogues.jsonl"
    loaded = Recipe.load(str(write_recipe(folder, STAGES)), [given, *overrides])
    preflight.check(loaded, loaded.steps)


def test_a_chain_that_fits_together_is_right(tmp_path):
    checked(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.sft.data=$world/sftt", "stages.sft.data: world has no folder 'sftt', did you mean 'sft'?"),
        ("stages.judge.model.model_name_or_path=$sft/checkpoints", "sft has no folder 'checkpoints'"),
        ("stages.ahead.previous=$scratch/first", "scratch has no folder 'first' (it will have none)"),
        ("stages.online.rewards.judged.path=$sft", "rewards.judged.path: sft is a model without a head that scores"),
        ("stages.online.model.model_name_or_path=$judge", "model_name_or_path: judge is a reward model"),
        ("stages.ahead.previous=$wide", "stages.ahead.previous: is a model of another architecture"),
        ("stages.ahead.previous=$judge", "stages.ahead.previous: is a reward model, and `new` a policy"),
        ("stages.ahead.new=$judge", "stages.ahead.new: is a reward model, and `previous` a policy"),
        (
            "stages.sft.data={path: $world/sft, split: validation}",
            "stages.sft.data.split: world leaves the splits train and test, and no 'validation'",
        ),
        (
            "stages.sft.train.max_length=2000",
            "stages.sft.train.max_length: 2000 tokens are more than the context of scratch, 1024: lower it",
        ),
        (
            "stages.judge.train.max_length=2000",
            "stages.judge.train.max_length: 2000 tokens are more than the context of sft, 1024",
        ),
        (
            "stages.online.train.max_completion_length=1024",
            "max_completion_length: 1024 tokens with its prompt are more than the context of sft, 1024",
        ),
        (
            "stages.drawn.generate.max_new_tokens=1024",
            "generate.max_new_tokens: 1024 tokens with its prompt are more than the context of sft, 1024",
        ),
        ("stages.drawn.prompts=$turns/asked", "stages.drawn.prompts: turns has no folder 'asked'"),
        ("stages.drawn.prompts={path: $turns/prompts, split: test}", "turns leaves the split train alone"),
    ],
)
def test_what_does_not_fit_is_known_before_anything_runs(override, message, tmp_path):
    with pytest.raises(RecipeError) as raised:
        checked(tmp_path, override)
    assert message in str(raised.value)


def test_a_place_where_nothing_can_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(RecipeError, match="nothing can be written in"):
        checked(tmp_path)
