"""Blocks become instances: keys and types are checked, and a macro reads its own fields as they are written."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
import trl

from trimtab.pipelines.data.forms import PROMPTS, Data, DataMixture
from trimtab.pipelines.planning import field_types, kinds, schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import KeysOf, ModelName, WordOf
from trimtab.pipelines.planning.reward_blocks import RewardBlock


@dataclass(kw_only=True)
class Loop:
    prompts: Annotated[Data, PROMPTS]
    held_out: Annotated[Data | None, PROMPTS] = None
    rewards: dict[str, RewardBlock]
    models: dict[str, ModelName] = field(default_factory=dict)
    rounds: int = 3
    beta: float | list[float] = 0.1
    loss: Annotated[str, WordOf(kinds.LOSSES)] = "dpo"
    train: Annotated[dict[str, Any], KeysOf(("trl.SFTConfig",))] = field(default_factory=dict)


PLACE = ("stages", "loop")
BLOCK = {"prompts": "$prompts", "rewards": {"brief": {"kind": "length", "target": "$x.brief"}}}


def test_a_macro_has_defaults_coerced_numbers_and_blocks_as_they_are_written():
    loop = schema.as_written(Loop, {**BLOCK, "rounds": "2", "beta": [1, "1e-3"], "held_out": "$p/test"}, PLACE)
    assert (loop.rounds, loop.beta, loop.loss) == (2, [1.0, 1e-3], "dpo")
    assert loop.prompts == "$prompts"
    assert loop.held_out == "$p/test"
    assert loop.rewards == BLOCK["rewards"]
    assert loop.train == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": None}, "stages.loop.prompts: required key is missing"),
        ({"rewards": {}}, "stages.loop.rewards: required key is missing"),
        ({"rewards": ["brief"]}, r"stages.loop.rewards: expected a mapping, got \['brief'\]"),
        ({"rewards": {"brief": 3}}, "stages.loop.rewards.brief: expected a mapping, got 3"),
        ({"rounds": "two"}, "stages.loop.rounds: expected a whole number, got 'two'"),
        ({"beta": [0.1, "x"]}, "stages.loop.beta.1: expected a number, got 'x'"),
        ({"loss": "sppoo"}, "stages.loop.loss: expected one of dpo, .* got 'sppoo', did you mean 'sppo'"),
        ({"train": 3}, "stages.loop.train: expected a mapping, got 3"),
        ({"models": {"sft": 3}}, "stages.loop.models.sft: expected a string, got 3"),
    ],
)
def test_a_macros_mistake_names_its_place(change, message):
    with pytest.raises(RecipeError, match=message):
        schema.as_written(Loop, {**BLOCK, **change}, PLACE)


def test_the_words_of_a_loss_are_those_of_trls_own_help():
    words = field_types.documented_values(trl.DPOConfig, "loss_type")
    assert {"sigmoid", "ipo", "apo_zero", "apo_down"} <= set(words)
    assert field_types.documented_values(trl.DPOConfig, "beta") == []


def test_a_list_of_losses_is_checked_word_by_word():
    assert schema.check(trl.DPOConfig, {"loss_type": "sigmoid"})["loss_type"] == ["sigmoid"]
    with pytest.raises(RecipeError, match=r"expected one of sigmoid, .* got 'sigmoidd', did you mean 'sigmoid'"):
        schema.check(trl.DPOConfig, {"loss_type": ["sigmoid", "sigmoidd"]})
    with pytest.raises(RecipeError, match="got 'grpoo', did you mean 'grpo'"):
        schema.check(trl.GRPOConfig, {"loss_type": "grpoo"})


def test_the_words_that_trl_documents_are_found_in_every_configuration_with_a_loss():
    """An upgrade that words its help anew would leave these keys unchecked without a word."""
    for cls in (trl.SFTConfig, trl.DPOConfig, trl.GRPOConfig):
        assert len(field_types.documented_values(cls, "loss_type")) > 1, cls.__name__


def test_a_word_is_a_file_of_the_package_or_one_of_the_others():
    note = WordOf(kinds.LOSSES, lambda: ["sigmoid", "dpo"])
    assert note.words == [*kinds.words(kinds.LOSSES), "sigmoid"]
    assert note("sigmoid", PLACE) == "sigmoid"
    with pytest.raises(RecipeError, match=r"expected one of dpo, .*, sigmoid, got 'sigmoidd', did you mean 'sigmoid'"):
        note("sigmoidd", PLACE)


def test_keys_of_names_classes_of_trl_and_kinds_of_stages():
    note = KeysOf(("trl.SFTConfig", "prefer"))
    assert str(note) == "`trl.SFTConfig` or `prefer`"
    assert note.types == [trl.SFTConfig]


def test_a_models_name_is_a_string():
    assert schema.coerce("org/model", ModelName, PLACE) == "org/model"
    with pytest.raises(RecipeError, match=r"stages\.loop: expected a string, got 3"):
        schema.coerce(3, ModelName, PLACE)


@pytest.mark.parametrize(
    ("value", "hint", "read"),
    [
        ("5e-7", float, 5e-7),
        ("3", int, 3),
        (3.0, int, 3),
        ("sigmoid", list[str], ["sigmoid"]),
        (None, int | None, None),
        ("auto", str | int, "auto"),
        ("7", int | str, "7"),  # what is of one of the types already stays what it is
        ("1e-6", float | None, 1e-6),
        ({"a": "1"}, dict[str, float], {"a": 1.0}),
    ],
)
def test_values_are_read_as_their_types(value, hint, read):
    result = schema.coerce(value, hint, PLACE)
    assert (result, type(result)) == (read, type(read))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"learning_rate": "fast"}, "stages.loop.learning_rate: expected a number, got 'fast'"),
        ({"max_steps": 1.5}, "stages.loop.max_steps: expected a whole number, got 1.5"),
        ({"max_steps": True}, "stages.loop.max_steps: expected a whole number, got True"),
        ({"warmup_ratio": 0.1}, "stages.loop.warmup_ratio: unknown key for DPOConfig: use 'warmup_steps'"),
        ({"output_dir": "x"}, "stages.loop.output_dir: not a key of a recipe"),
        ({"hub_token": "x"}, "stages.loop.hub_token: not a key of a recipe: secrets do not belong in a recipe"),
    ],
)
def test_mistakes_in_training_arguments_name_their_place(train, message):
    with pytest.raises(RecipeError, match=message):
        schema.coerce(train, trl.DPOConfig, PLACE)


def test_a_key_that_upstream_renamed_names_its_successor():
    with pytest.raises(RecipeError, match="unknown key for ModelConfig: use 'dtype'"):
        schema.check(trl.ModelConfig, {"torch_dtype": "bfloat16"})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"kind": "length", "targt": 3}, "stages.loop.targt: unknown key for Length, did you mean 'target'?"),
        ({"kind": "lenght"}, "stages.loop.kind: unknown kind 'lenght', did you mean 'length'?"),
        ({"target": 3}, "stages.loop: expected a block with a `kind`"),
    ],
)
def test_mistakes_in_a_reward_name_their_place(block, message):
    with pytest.raises(RecipeError) as raised:
        schema.load_reward(block, PLACE)
    assert message in str(raised.value)


def test_notes_are_read_through_containers_and_unions():
    hints = field_types.hints(Loop)
    assert PROMPTS in field_types.notes(hints["held_out"])
    assert any(isinstance(note, field_types.NamesModel) for note in field_types.notes(hints["models"]))
    assert field_types.bare(hints["held_out"]) is DataMixture
