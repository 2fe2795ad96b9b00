"""What of a step takes time, in amounts of which a machine has a price each: seconds = sum of amount x price."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from trimtab.pipelines.forecasting.architectures import Architecture
from trimtab.pipelines.forecasting.memory import trained_parameters
from trimtab.pipelines.forecasting.passes import Drawing, Pass
from trimtab.pipelines.forecasting.setting import Setting
from trimtab.pipelines.forecasting.work import Work

# Which amounts there are, and what one of each is.
AMOUNTS = {
    "files": "a step that opens neither rows nor a model",
    "rows": "a step that imports no model",
    "models": "a step that imports models",
    "trainer": "a step that imports a trainer",
    "imports": "the first of them in its process",
    "figures": "what a report shows of a step",
    "prepared": "a text that is tokenised",
    "handled": "a row that goes through Python",
    "layers": "a layer of a model that is called",
    "operations": "a multiplication with its addition",
    "numbers": "a number that a layer leaves",
    "drawn": "a layer of a model that is called for one more token of every row",
    "said": "a token that is drawn",
    "attended": "a number of keys and values that a token which is drawn attends to",
    "updated": "a parameter that the optimizer changes",
    "tensors": "a tensor that the optimizer changes",
    "written": "a byte of an artifact or a checkpoint",
}
BACKWARD = 2.0  # forward passes that a backward pass is worth
RECOMPUTED = 1.0  # and once more what was not kept
AROUND = 2  # layers that embeddings, the head and the loss are worth


def of(work: Work, setting: Setting, written: float, *, imports: bool = True) -> dict[str, float]:
    """The amounts of a step on the rank that has most to do, which is any.

    `imports` says whether its process has imported no trainer yet.
    """
    amounts = dict.fromkeys(AMOUNTS, 0.0)
    amounts[work.libraries] = 1
    amounts["imports"] = float(imports and work.libraries == "trainer")
    amounts["figures"] = work.figures
    amounts["prepared"], amounts["handled"], amounts["written"] = work.prepared, work.handled, written
    of_passes = [_of_pass(one, setting) for one in work.passes]
    of_draws = [_of_drawing(one, setting) for one in work.draws]
    for name, amount in chain.from_iterable(of.items() for of in [*of_passes, *of_draws]):
        amounts[name] += amount
    for held in work.held:
        if held.is_trained:
            split = setting.ranks if setting.engine.sharded != "nothing" else 1
            amounts["updated"] += work.updates * trained_parameters(held.model, setting) / split
            amounts["tensors"] += work.updates * held.model.tensors
    return amounts


def tokens(work: Work, setting: Setting) -> float:
    """The tokens that all ranks put through models or draw."""
    through = sum(_calls(one, setting) * setting.ranks * one.tokens_of_call()[0] for one in work.passes)
    return through + sum(one.read + one.rows * float(one.lengths.mean()) for one in work.draws)


def _calls(one: Pass, setting: Setting) -> float:
    return one.rows / (one.batch * setting.ranks)


def _of_pass(one: Pass, setting: Setting) -> Mapping[str, float]:
    model, texts = one.model, one.texts
    times = 1 + BACKWARD * one.backward + RECOMPUTED * (one.backward and setting.checkpointing)
    calls, in_call = _calls(one, setting), one.tokens_of_call()[0]
    of_head = calls * times * one.scored_of_call * model.head_multiplied
    return {
        "layers": calls * (model.layers + AROUND) * times,
        "operations": calls * in_call * times * _operations(model, float(texts.tokens.mean())) + of_head,
        "numbers": calls * in_call * times * model.layers * model.inside,
    }


def _of_drawing(one: Drawing, setting: Setting) -> Mapping[str, float]:
    model = one.model
    reads, says, rows = (number / setting.ranks for number in one.calls())
    read, length = one.read / setting.ranks, float(one.texts.tokens.mean())
    said = length + float(one.lengths.mean()) / 2
    return {
        "layers": reads * (model.layers + AROUND),
        "drawn": says * (model.layers + AROUND),
        "said": rows,
        "attended": rows * said * model.layers * model.cached,
        "operations": read * _operations(model, length) + rows * (_operations(model, said) + model.head_multiplied),
        "numbers": (read + rows) * model.layers * model.inside,
    }


def _operations(model: Architecture, length: float) -> float:
    """Multiplications with their additions for one token: the layers' matrices, and attention to what came before."""
    return model.multiplied - model.head_multiplied + model.layers * model.width * length


def weights_read(work: Work, setting: Setting) -> float:
    """The bytes of weights that are read for one token after another, which is what a GPU waits for."""
    most = 2 if setting.bf16 else 4
    of_draws = [(one.calls()[1] / setting.ranks, one.model) for one in work.draws]
    return sum(says * model.parameters * min(model.bytes, most) for says, model in of_draws)
