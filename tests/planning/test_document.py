"""A recipe's YAML: its mistakes name their line, anchors work, and overrides are checked."""

import pytest
from planned import STAGES
from run_steps import write_recipe

from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path, STAGES)


def test_yaml_mistakes_name_the_line(write):
    with pytest.raises(RecipeError, match=r"recipe.yaml:3: key 'sft' is given twice"):
        Recipe.load(write("recipe.yaml", "stages:\n  sft: {}\n  sft: {}\n"))
    with pytest.raises(RecipeError, match="not readable as YAML"):
        Recipe.load(write("recipe.yaml", "stages: [\n"))
    for name, near in (("recipes/tinny.yaml", "tiny.yaml"), ("tinny", "tiny"), ("mistral-7b/apoo", "mistral-7b/apo")):
        with pytest.raises(RecipeError, match=rf"no such recipe: {name}, did you mean '{near}'\?"):
            Recipe.load(name)


def test_anchors_and_merge_keys(write):
    text = "stages:\n  a: &a {kind: sft, model: {model_name_or_path: x}, data: d, train: {}}\n  b: {<<: *a, data: e}\n"
    a, b = Recipe.load(write("recipe.yaml", text)).steps
    assert a.options["data"] == "d"
    assert b.options["data"] == "e"
    assert b.options["model"] == a.options["model"]


def test_overrides_are_checked(recipe):
    with pytest.raises(RecipeError, match="no stage 'dop', did you mean 'dpo'"):
        Recipe.load(str(recipe), ["stages.dop.train.beta=1"])
    with pytest.raises(RecipeError, match=r"expected a\.b\.c=value"):
        Recipe.load(str(recipe), ["beta"])
    with pytest.raises(RecipeError, match="unknown key for a recipe, did you mean 'stages'"):
        Recipe.load(str(recipe), ["stage.dpo.train.beta=1"])


def test_numbers_in_scientific_notation_are_numbers(recipe):
    steps = Recipe.load(str(recipe), ["stages.dpo.train.learning_rate=5e-7"]).steps
    assert steps[1].options["train"]["learning_rate"] == 5e-7


def test_every_value_has_its_line_and_its_origin(write):
    path = write("recipe.yaml", "stages:\n  sft:\n    train:\n      beta: 0.1\n      seed: 2\n")
    document = Document.read(path, ["stages.sft.train.beta=0.2"])
    assert document.values == {"stages": {"sft": {"train": {"beta": 0.2, "seed": 2}}}}
    assert document.origins["stages", "sft", "train", "beta"] == "override stages.sft.train.beta=0.2"
    assert document.origins["stages", "sft", "train", "seed"] == "recipe line 5"
    nearest = document.locate(RecipeError("wrong", ("stages", "sft", "train", "absent")))
    assert str(nearest) == f"{path}:3: stages.sft.train.absent: wrong"


def test_an_override_reaches_into_a_list(write):
    path = write("recipe.yaml", "stages:\n  sft:\n    data: {datasets: [{path: a}, {path: b}]}\n")
    document = Document.read(path, ["stages.sft.data.datasets.1.path=c"])
    assert [entry["path"] for entry in document.values["stages"]["sft"]["data"]["datasets"]] == ["a", "c"]
    with pytest.raises(RecipeError, match="the list has 2 entries"):
        Document.read(path, ["stages.sft.data.datasets.2=c"])


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "a recipe is a mapping with `stages`, got an empty file"),
        ("- sft\n- dpo\n", 1, "a recipe is a mapping with `stages`, got a list"),
        ("stages:\n\tsft: {}\n", 2, "cannot start any token: indent with spaces"),
        ("stages:\n  sft: {train: {beta: .nan}}\n", 2, "stages.sft.train.beta: NaN is not a number"),
        ("stages:\n  sft: {}\n\n  sft: {}\n", 4, "key 'sft' is given twice, in lines 2 and 4"),
        ("a: &a\n  b: *a\n", 1, "not readable as YAML: an anchor contains itself"),
        ("stages: {}\n---\nstages: {}\n", 2, "expected a single document in the stream"),
    ],
)
def test_a_file_that_is_no_recipe_is_a_line(text, line, message, write):
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path := write("recipe.yaml", text))
    told = [str(mistake) for mistake in caught.value.mistakes]
    assert any(one.startswith(f"{path}:{line}: ") and message in one for one in told), told
    assert not any("\n" in one for one in told)


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes("stages: {}\nname: Zürich\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"recipe.yaml:2: byte 0xfc is not UTF-8"):
        Recipe.load(str(path))


def test_every_key_that_is_given_twice_is_told(write):
    text = "stages:\n  sft:\n    train: {beta: 1, beta: 2}\n    model: a\n    model: b\n"
    with pytest.raises(RecipeError) as caught:
        Document.read(write("recipe.yaml", text))
    assert [mistake.line for mistake in caught.value.mistakes] == [3, 5]
