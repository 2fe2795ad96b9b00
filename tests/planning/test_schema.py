"""Blocks become instances: what a macro reads of its own fields, and which words are known."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
import trl

from trimtab.pipelines.data.forms import PROMPTS, Data
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


def test_notes_are_read_through_containers_and_unions():
    hints = field_types.hints(Loop)
    assert PROMPTS in field_types.notes(hints["held_out"])
    assert any(isinstance(note, field_types.NamesModel) for note in field_types.notes(hints["models"]))
    assert field_types.bare(hints["held_out"]) is trl.DatasetMixtureConfig
