"""`$name` stands for the artifact of a stage above, a folder or a number in it, or an input."""

import pytest
from planned import STAGES, fingerprints
from run_steps import write_recipe

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe


def test_references_become_paths_and_may_name_a_folder(tmp_path):
    stages = {"world": {}, "scratch": {"corpus": "$world/sft"}}
    world, scratch = Recipe.load(str(write_recipe(tmp_path, stages))).steps
    assert scratch.options["corpus"] == f"{world.output}/sft"
    assert scratch.inputs == (world,)
    assert scratch.waiting == (world,)
    assert scratch.pending(f"{world.output}/sft")


def test_inputs_are_names_for_things_from_outside(tmp_path, write):
    file = write("rows.jsonl", "a")
    recipe = write_recipe(tmp_path, {"sft": {**STAGES["sft"], "data": "$rows"}}, inputs={"rows": file})
    assert fingerprints(recipe) == fingerprints(write_recipe(tmp_path, {"sft": {**STAGES["sft"], "data": file}}))
    assert Recipe.load(str(recipe)).steps[0].options["data"] == file


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("$below", "'$below' is below (line "),
        ("$dpo", "'$dpo' refers to the stage itself"),
        ("$sfd", "no stage or input 'sfd' above, did you mean 'sft'? (there are: sft)"),
        ("$sft/", "'$sft/' is not a reference: write $stage, $stage/folder or $stage.number"),
    ],
)
def test_a_reference_to_nothing_above_is_an_error_with_its_line(reference, message, tmp_path):
    stages = {"sft": STAGES["sft"], "dpo": {"model": {"model_name_or_path": reference}}, "below": STAGES["sft"]}
    stages["below"] = {"kind": "sft", **STAGES["sft"]}
    with pytest.raises(RecipeError, match=r"recipe.yaml:\d+: stages\.dpo\.model\.model_name_or_path: ") as raised:
        Recipe.load(str(write_recipe(tmp_path, stages)))
    assert message in str(raised.value)


def test_two_dollars_are_a_dollar(tmp_path):
    stages = {"score": {"completions": "hub/data", "rewards": {"price": {"kind": "pattern", "regex": "$$5"}}}}
    (score,) = Recipe.load(str(write_recipe(tmp_path, stages))).steps
    assert score.options["rewards"]["price"]["regex"] == "$5"
