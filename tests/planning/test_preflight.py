"""Mistakes in a recipe or its data: one readable message, exit code 2, nothing written, nothing launched."""

import subprocess
import sys

import pytest
from planned import on_rows
from run_steps import write_recipe

from trimtab.pipelines.running import launch
from trimtab.pipelines.stages.sft import Sft
from trimtab.scripts import run


@pytest.fixture
def recipe(write, model):
    """A correct recipe; the tests break one thing each."""
    return on_rows(write, model)


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Runs the recipe, expects exit code 2 before any launch, and returns the message."""

    def refused(stages, *overrides, lines=1):
        monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("launched"))
        code = run.main([str(write_recipe(tmp_path, stages)), *overrides])
        said = capsys.readouterr().err.splitlines(keepends=True)
        error = "".join(line for line in said if not line.startswith("note: ")).strip()
        assert code == 2, error
        assert all(line.startswith("error: ") for line in error.splitlines()), error
        assert len(error.splitlines()) == lines, error
        assert not (tmp_path / "runs").exists()
        return error if lines == 1 else error.splitlines()

    return refused


def test_the_recipe_without_mistakes_passes(recipe, tmp_path, capsys):
    assert run.main([str(write_recipe(tmp_path, recipe)), "--plan"]) == 0
    assert "2 steps, 0 done, 2 pending" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_unknown_key_with_its_line_and_a_suggestion(recipe, refused, tmp_path):
    recipe["dpo"]["train"]["learing_rate"] = 1.0
    error = refused(recipe)
    assert "stages.dpo.train.learing_rate: unknown key for DPOConfig, did you mean 'learning_rate'?" in error
    lines = (tmp_path / "recipe.yaml").read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(lines) if "learing_rate" in text)
    assert f"recipe.yaml:{line}: " in error


def test_unknown_key_of_a_stage(recipe, refused):
    recipe["dpo"]["dat"] = "x"
    assert "stages.dpo.dat: unknown key for kind 'dpo', did you mean 'data'?" in refused(recipe)


def test_wrong_type_in_an_override(recipe, refused):
    error = refused(recipe, "stages.dpo.train.learning_rate=[1, 2]")
    assert "stages.dpo.train.learning_rate: expected a number, got [1, 2]" in error
    assert error.startswith("error: override stages.dpo.train.learning_rate=[1, 2]: ")


def test_a_number_written_as_a_string_is_read(recipe, tmp_path):
    recipe["dpo"]["train"] |= {"learning_rate": "5e-7", "loss_type": "ipo"}
    assert run.main([str(write_recipe(tmp_path, recipe)), "--plan"]) == 0


def test_missing_model(recipe, refused):
    recipe["sft"]["model"]["model_name_or_path"] = "./no/model"
    assert "stages.sft.model.model_name_or_path: no such model: ./no/model" in refused(recipe)


def test_a_mistake_in_the_data(recipe, refused, write):
    recipe["dpo"]["data"] = write("pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejcted": "c"}])
    error = refused(recipe)
    assert "stages.dpo.data: " in error
    assert "pairs.jsonl has no column 'rejected', did you mean 'rejcted'?" in error


def test_all_mistakes_are_told_at_once_a_line_each_and_what_follows_from_them_is_not(recipe, refused, write):
    recipe["sft"]["train"] |= {"learing_rate": 1.0, "eval_strategy": "often"}
    recipe["dpo"]["data"] = write("pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejcted": "c"}])
    recipe["dpo"]["train"]["beta"] = "strong"
    recipe["again"] = {"kind": "dpoo", "model": {"model_name_or_path": "$sft"}}
    recipe["of_again"] = {**recipe["dpo"], "kind": "dpo", "model": {"model_name_or_path": "$again"}, "train": {}}
    recipe["score"] = {"completions": "$sftt", "rewards": {"brief": {"kind": "length", "targett": 3}}}
    lines = refused(recipe, "stages.dpo.train.bta=1", lines=9)
    assert [line.split(": ")[2] for line in lines] == [
        "stages.dpo.train.bta",
        "stages.sft.train.learing_rate",
        "stages.sft.train.eval_strategy",
        "stages.dpo.data",
        "stages.dpo.train.beta",
        "stages.again.kind",
        "stages.of_again.data",
        "stages.score.completions",
        "stages.score.rewards.brief.targett",
    ]
    numbers = [int(line.split(": ")[1].rpartition(":")[2]) for line in lines[1:]]
    assert numbers == sorted(numbers)


def test_a_mistake_in_the_defaults_is_told_once(recipe, tmp_path, capsys):
    path = write_recipe(tmp_path, recipe, defaults={"train": {"max_stepz": 3}, "modle": {}})
    assert run.main([str(path), "--plan"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "defaults.train.max_stepz: no stage has such a key in `train`, did you mean 'max_steps'?" in lines[0]
    assert "defaults.modle: no stage has such a key, did you mean 'model'?" in lines[1]


def test_mistakes_inside_a_macro_whose_own_keys_are_wrong_are_told_too(recipe, refused):
    recipe["apo"] = {"model": {"dtyp": "auto", "model_name_or_path": "$sft"}, "prompts": "org/prompts",
                     "rewards": {"brief": {"kind": "length", "target": 3}}, "rounds": "many",
                     "train": {"learing_rate": 1.0}}  # fmt: skip
    lines = refused(recipe, lines=3)
    keys = ["stages.apo.model.dtyp", "stages.apo.rounds", "stages.apo.train.learing_rate"]
    assert [line.split(": ")[2] for line in lines] == keys


def test_a_misspelt_key_costs_no_import_of_torch(recipe, tmp_path):
    recipe["dpo"]["train"]["learing_rate"] = 1.0
    path = write_recipe(tmp_path, recipe)
    program = (
        "import sys; from trimtab.scripts import run; code = run.main(sys.argv[1:]); "
        "sys.exit('torch' in sys.modules or code != 2)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True).returncode == 0


def test_reference_to_a_stage_below(recipe, refused):
    recipe["sft"]["model"]["model_name_or_path"] = "$dpo"
    assert "stages.sft.model.model_name_or_path: '$dpo' is below (line " in refused(recipe)


def test_secrets_are_not_the_recipes(recipe, refused):
    assert "secrets do not belong in a recipe" in refused(recipe, "stages.sft.train.hub_token=abc")


def test_unknown_reward(recipe, refused):
    recipe["score"] = {"completions": "$sft", "rewards": {"brief": {"kind": "lenght", "target": 3}}}
    assert "stages.score.rewards.brief.kind: unknown kind 'lenght', did you mean 'length'?" in refused(recipe)


def test_unknown_accelerate_config(recipe, refused):
    recipe["sft"]["accelerate"] = "dpp"
    assert "stages.sft.accelerate: no accelerate config 'dpp', did you mean 'ddp'?" in refused(recipe)


def test_one_checkpoint_is_not_enough(recipe, refused):
    recipe["sft"]["train"]["save_total_limit"] = 1
    assert "stages.sft.train.save_total_limit: 1 leaves nothing to resume from" in refused(recipe)


def test_an_evaluation_needs_data(recipe, refused):
    recipe["sft"]["train"]["eval_strategy"] = "steps"
    assert "stages.sft.train.eval_strategy: eval_strategy needs `eval_data`" in refused(recipe)


def test_what_a_library_refuses_in_a_check_is_a_mistake_of_its_stage(recipe, refused, monkeypatch):
    from transformers import GenerationConfig

    monkeypatch.setattr(Sft, "check", lambda self, step: GenerationConfig(max_new_tokens=0).validate())
    recipe["dpo"]["train"]["save_total_limit"] = 1
    first, second = refused(recipe, lines=2)
    assert "recipe.yaml:4: stages.sft: ValueError: `max_new_tokens` must be greater than 0, but is 0. (" in first
    assert "configuration_utils.py:" in first
    assert "TRIMTAB_TRACEBACK=1 shows all of it" in first
    assert "stages.dpo.train.save_total_limit" in second


def test_a_bug_in_a_check_stays_a_traceback(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(Sft, "check", lambda self, step: {}["absent"])
    with pytest.raises(KeyError):
        run.main([str(write_recipe(tmp_path, recipe)), "--plan"])


def test_a_step_that_needs_one_that_is_not_done(recipe, refused):
    assert "dpo needs sft, which is not done: run sft first" in refused(recipe, "--only", "dpo")
