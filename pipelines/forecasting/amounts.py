"""What of a step takes time, in amounts of which a machine has a price each: seconds = sum of amount x price."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.pipelines.forecasting.memory import trained_parameters
from trimtab.pipelines.forecasting.setting import Setting
from trimtab.pipelines.forecasting.work import Pass, Work

# Which amounts there are, and what one of each is.
AMOUNTS = {
    "rows": "a step that imports no model",
    "models": "a step that imports models",
    "trainer": "a step that imports a trainer",
    "prepared": "a text that is tokenised",
    "handled": "a row that goes through Python",
    "layers": "a layer of a model that is called",
    "operations": "a multiplication with its addition",
    "numbers": "a number that a layer leaves",
    "drawn": "a layer of a model that is called for one more token",
    "updated": "a parameter that the optimizer changes",
    "tensors": "a tensor that the optimizer changes",
    "written": "a byte of an artifact or a checkpoint",
}
BACKWARD = 2.0  # forward passes that a backward pass is worth
RECOMPUTED = 1.0  # and once more what was not kept
AROUND = 2  # layers that embeddings, the head and the loss are worth


def of(work: Work, setting: Setting, written: float) -> dict[str, float]:
    """The amounts of a step on the rank that has most to do, which is any."""
    amounts = dict.fromkeys(AMOUNTS, 0.0)
    amounts[work.libraries] = 1
    amounts["prepared"], amounts["handled"], amounts["written"] = work.prepared, work.handled, written
    for one in work.passes:
        for name, amount in _of_pass(one, setting).items():
            amounts[name] += amount
    for held in work.held:
        if held.is_trained:
            split = setting.ranks if setting.engine.sharded != "nothing" else 1
            amounts["updated"] += work.updates * trained_parameters(held.model, setting) / split
            amounts["tensors"] += work.updates * held.model.tensors
    return amounts


def tokens(work: Work, setting: Setting) -> float:
    """The tokens that all ranks put through models or draw, with their padding."""
    total = 0.0
    for one in work.passes:
        total += _calls(one, setting) * setting.ranks * (one.tokens_of_call()[0] + one.width * one.drawn)
    return total


def _calls(one: Pass, setting: Setting) -> float:
    return one.rows / (one.batch * setting.ranks)


def _of_pass(one: Pass, setting: Setting) -> Mapping[str, float]:
    model = one.model
    times = 1 + BACKWARD * one.backward + RECOMPUTED * (one.backward and setting.checkpointing)
    calls, depth = _calls(one, setting), model.layers + AROUND
    in_call = one.tokens_of_call()[0]
    length = in_call / one.width
    amounts = {
        "layers": calls * depth * times,
        "operations": calls * in_call * times * _operations(one, length),
        "numbers": calls * in_call * times * model.layers * model.inside,
    }
    if one.drawn:
        amounts["drawn"] = calls * one.drawn * depth
        amounts["operations"] += calls * one.width * one.drawn * _operations(one, length + one.drawn / 2)
        amounts["numbers"] += calls * one.width * one.drawn * model.layers * model.inside
    return amounts


def _operations(one: Pass, length: float) -> float:
    """Multiplications with their additions for one token: the matrices, and attention to what came before."""
    return one.model.multiplied + one.model.layers * one.model.width * length


def weights_read(work: Work, setting: Setting) -> float:
    """The bytes of weights that are read for one token after another, which is what a GPU waits for."""
    drawn = [one for one in work.passes if one.drawn]
    most = 2 if setting.bf16 else 4
    return sum(_calls(one, setting) * one.drawn * one.model.parameters * min(one.model.bytes, most) for one in drawn)
