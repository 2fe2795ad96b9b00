"""What every kind promises: macros and losses whose mistakes a plan finds, and a form for all data."""

import inspect
import re

import pytest
import trl
from run_steps import write_recipe
from short_trainings import BRIEF, plan

from trimtab.pipelines.data.forms import Form, mixture
from trimtab.pipelines.planning import field_types, kinds, preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.stages import Stage

MODEL = {"model_name_or_path": "org/model"}
LOOP = {"model": MODEL, "prompts": "org/prompts", "rewards": {"brief": BRIEF}}
MACROS = {
    "apo": LOOP,
    "self_consuming": LOOP,
    "proxy_points": {"model": MODEL, "data": "org/prompts", "rewards": {"brief": BRIEF}, "metric": BRIEF},
    "rejection_sampling": {"model": MODEL, "prompts": "org/prompts", "rewards": {"brief": BRIEF}},
    "self_improve": {"model": MODEL, "prompts": "org/prompts", "right": BRIEF},
    "benchmark": {"policies": {"one": "org/model"}, "tasks": {"sums": {"prompts": "org/sums", "right": BRIEF}}},
    "self_correct": {"model": MODEL, "prompts": "org/prompts", "checks": {"brief": BRIEF}, "accept": {"brief": 1.0}},
    "preflexor": {"model": MODEL, "corpus": "org/texts", "teacher": {"model": MODEL}},
    "reflect": {"model": MODEL, "prompts": "org/prompts", "critic": {"model": MODEL}},
    "evaluate": {"policies": {"one": "org/model"}, "prompts": "org/prompts", "rewards": {"brief": BRIEF}},
}
PAIRS = {"model": MODEL, "data": "pairs.jsonl", "train": {}}
OF_TRL = field_types.documented_values(trl.DPOConfig, "loss_type")


def build(tmp_path, stages):
    """Plans the recipe and builds every step's stage, which checks its keys and types."""
    recipe = Recipe.load(str(write_recipe(tmp_path, stages)))
    try:
        for step in recipe.steps:
            preflight.build(step)
    except RecipeError as error:
        raise recipe.document.locate(error) from error
    return recipe.steps


def refused(tmp_path, stages):
    """The message by which the plan ends, without the file and the line that it begins with."""
    with pytest.raises(RecipeError, match=r"^/.*recipe\.yaml:\d+: ") as caught:
        build(tmp_path, stages)
    return str(caught.value).split(": ", 1)[1]


@pytest.mark.parametrize("macro", MACROS)
def test_a_macro_plans_with_its_required_keys_alone(macro, tmp_path):
    steps = build(tmp_path, {macro: MACROS[macro]})
    assert len(steps) > 1
    assert steps[-1].name == macro


REQUIRED = [(macro, key) for macro, block in MACROS.items() for key in block]


@pytest.mark.parametrize(("macro", "key"), REQUIRED)
def test_a_missing_key_is_named(macro, key, tmp_path):
    block = {name: value for name, value in MACROS[macro].items() if name != key}
    assert refused(tmp_path, {macro: block}) == f"stages.{macro}.{key}: required key is missing"


@pytest.mark.parametrize("macro", MACROS)
def test_required_is_what_the_annotations_say(macro):
    fields = kinds.find(kinds.STAGES, macro).__dataclass_fields__.values()
    assert {field.name for field in fields if field_types.is_required(field)} == set(MACROS[macro])


@pytest.mark.parametrize(
    ("macro", "key", "value", "message"),
    [
        ("apo", "rounds", "many", "rounds: expected a whole number, got 'many'"),
        ("apo", "split_prompts", "perhaps", "split_prompts: expected true or false, got 'perhaps'"),
        (
            "apo",
            "engine",
            "vlm",
            "engine: expected one of transformers, continuous, vllm, server, ray, auto, got 'vlm'",
        ),
        ("apo", "rewards", ["brief"], "rewards: expected a mapping, got ['brief']"),
        ("apo", "model", "org/model", "model: expected a mapping, got 'org/model'"),
        ("self_consuming", "rounds", 2.5, "rounds: expected a whole number, got 2.5"),
        ("self_consuming", "retrain", "hot", "retrain: expected one of warm, fresh, got 'hot'"),
        ("self_consuming", "temperature", [1.0], "temperature: expected a number, got [1.0]"),
        ("self_consuming", "train", 3, "train: expected a mapping, got 3"),
        ("proxy_points", "repeats", "two", "repeats: expected a whole number, got 'two'"),
        ("proxy_points", "together", 1, "together: expected true or false, got 1"),
        ("proxy_points", "fit", "linear", "fit: expected one of gaussian_process, polynomial, got 'linear'"),
        ("evaluate", "num_generations", "two", "num_generations: expected a whole number, got 'two'"),
        ("evaluate", "policies", ["org/model"], "policies: expected a mapping, got ['org/model']"),
        ("evaluate", "policies", {"one": 3}, "policies.one: expected a string, got 3: put it in quotes"),
        ("evaluate", "baseline", 3, "baseline: expected a string or null, got 3"),
    ],
)
def test_a_wrong_type_is_named(macro, key, value, message, tmp_path):
    assert refused(tmp_path, {macro: {**MACROS[macro], key: value}}) == f"stages.{macro}.{message}"


@pytest.mark.parametrize("key", ["beta", "momentum", "epochs"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0.1, 0.2], ": expected one number, or 3 for 3 rounds, got [0.1, 0.2]"),
        ([0.1, "x", 0.3], ".1: expected a number, got 'x'"),
    ],
)
def test_a_list_for_the_rounds_of_apo_has_a_number_for_each_of_them(key, value, message, tmp_path):
    assert refused(tmp_path, {"apo": {**LOOP, key: value}}) == f"stages.apo.{key}{message}"


@pytest.mark.parametrize(
    ("macro", "key", "message"),
    [
        ("apo", "round", "unknown key for kind 'apo', did you mean 'rounds'?"),
        ("self_consuming", "temprature", "unknown key for kind 'self_consuming', did you mean 'temperature'?"),
        ("proxy_points", "repeat", "unknown key for kind 'proxy_points', did you mean 'repeats'?"),
        ("evaluate", "policy", "unknown key for kind 'evaluate', did you mean 'policies'?"),
    ],
)
def test_an_unknown_key_has_a_suggestion(macro, key, message, tmp_path):
    assert refused(tmp_path, {macro: {**MACROS[macro], key: 1}}) == f"stages.{macro}.{key}: {message}"


def test_an_unknown_loss_has_a_suggestion(tmp_path):
    message = refused(tmp_path, {"apo": {**LOOP, "loss": "sppoo"}})
    assert message.startswith("stages.apo.loss: expected one of dpo, exo, ")
    assert message.endswith("got 'sppoo', did you mean 'sppo'?")
    message = refused(tmp_path, {"dpo": {**PAIRS, "train": {"loss_type": "sigmoidd"}}})
    assert message.startswith("stages.dpo.train.loss_type: expected one of sigmoid, hinge, ")
    assert message.endswith("got 'sigmoidd', did you mean 'sigmoid'?")
    message = refused(tmp_path, {"prefer": {**PAIRS, "loss": "robust"}})  # of trl, which `prefer` does not have
    assert message.startswith("stages.prefer.loss: expected one of dpo, exo, ")


@pytest.mark.parametrize("loss", kinds.words(kinds.LOSSES))
def test_every_loss_of_the_folder_is_one_word_away(loss, tmp_path):
    stages = {"prefer": {**PAIRS, "loss": loss}, "apo": {**LOOP, "loss": loss, "rounds": 1}}
    steps = plan(tmp_path, stages)
    assert steps["apo"].kind == "prefer"
    assert [preflight.build(steps[name]).loss for name in stages] == [loss, loss]


@pytest.mark.parametrize("loss", OF_TRL)
def test_every_loss_that_trl_documents_is_one_word_away_and_known_to_its_trainer(loss, tmp_path):
    stages = {"dpo": {**PAIRS, "train": {"loss_type": loss}}, "apo": {**LOOP, "loss": loss, "rounds": 1}}
    steps = plan(tmp_path, stages)
    assert preflight.build(steps["dpo"]).train.loss_type == [loss]
    if loss in kinds.words(kinds.LOSSES):  # `ipo` is on sums over tokens in ours, as in its paper
        assert steps["apo"].kind == "prefer"
    else:
        assert steps["apo"].kind == "dpo"
        assert preflight.build(steps["apo"]).train.loss_type == [loss]
    assert f'loss_type == "{loss}"' in inspect.getsource(trl.DPOTrainer)


def test_trl_knows_no_loss_that_it_does_not_document():
    """A word of its code that its help leaves out would be refused for no reason."""
    assert set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(trl.DPOTrainer))) == set(OF_TRL)


@pytest.mark.parametrize("word", kinds.words(kinds.STAGES))
def test_all_data_has_a_form(word):
    """The columns of every `Data` field are declared, so that they are checked, documented and made small."""
    cls = kinds.find(kinds.STAGES, word)
    assert issubclass(cls, Stage)
    fields = cls.__dataclass_fields__.values()
    stage = cls(**{field.name: {} for field in fields if field_types.is_required(field)})
    notes = {key: field_types.notes(hint) for key, hint in field_types.hints(cls).items()}
    assert set(stage.reads()) == {key for key in notes if mixture in notes[key]}
    assert all(isinstance(form, Form) for form in stage.reads().values())
