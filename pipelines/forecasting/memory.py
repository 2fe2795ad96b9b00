"""The peak of memory of a rank, in bytes, part by part.

Of a model that is trained: its weights, their gradients and the optimizer's numbers, each split over the ranks as the
engine does. Of every pass: what its largest batch leaves in the layers. The passes come one after another, so the
largest counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trimtab.pipelines.forecasting.architectures import Architecture
from trimtab.pipelines.forecasting.passes import Drawing, Pass
from trimtab.pipelines.forecasting.setting import Engine, Setting
from trimtab.pipelines.forecasting.work import Held, Work

# numbers that an optimizer keeps of each weight, by the beginning of its name; eight-bit ones of one byte
STATES = {"adafactor": 0, "sgd": 0, "rmsprop": 1, "lion": 1, "adagrad": 1}
HEAD_TOKENS = 256  # that trl's head takes at a time on a CPU
HEAD_TOKENS_ON_GPU = 4096
CACHE_COPIES = 2  # of a prompt's keys and values: one by one, and side by side
HEAD_COPIES = 3  # of a block of logits: themselves, their softmax, their gradient


def parts(work: Work, setting: Setting, memory: Mapping[str, float], held: float = 0.0) -> dict[str, float]:
    """The parts of the peak by name; `memory` is the machine's: what the libraries take, and its factors.

    `held` is what the process has of the steps before, its libraries with it.
    """
    process = max(memory[work.libraries], held)
    peak: dict[str, float] = {
        "process": process + memory["row"] * work.handled + memory["figures"] * bool(work.figures)
    }
    if work.libraries != "trainer":  # samplers and judges load whole models, whatever the launch is
        setting = replace(setting, engine=Engine(), bf16=not setting.on_cpu)
    for model in work.held:
        for name, size in _of_model(model, setting).items():
            peak[name] = peak.get(name, 0.0) + size
    learned, seen = memory["learned"], memory["seen"]
    of_passes = [_of_pass(one, setting, learned, seen) for one in work.passes]
    peak["batch"] = max([0.0, *of_passes, *(_of_drawing(one, setting, seen) for one in work.draws)])
    return peak


def left(work: Work, parts_of_peak: Mapping[str, float], memory: Mapping[str, float]) -> float:
    """What a process holds after a step: the libraries, and what allocators keep of all that the step has freed.

    Large blocks go back to the system; what is kept are small ones in between, up to some amount.
    """
    freed = sum(parts_of_peak.values()) - parts_of_peak["process"]
    return memory[work.libraries] + min(memory["kept"], freed)


def _of_model(held: Held, setting: Setting) -> dict[str, float]:
    model, engine = held.model, Engine() if held.is_whole else setting.engine
    split = setting.ranks if engine.sharded == "everything" else 1
    rounded = engine.rounds_weights and setting.bf16 and held.is_trained
    weight = 2 if rounded else model.bytes
    weights = model.parameters * weight / split
    if engine.offloads and engine.sharded == "everything":
        weights = 2 * weight * model.parameters / model.layers
    elif split > 1:  # a layer is whole while it computes, and the next one on its way
        weights += 2 * weight * model.parameters / model.layers
    if not held.is_trained:
        is_rounded = setting.bf16 and weight == 4 and engine.sharded == "nothing"
        return {"weights": weights - (2 * model.multiplied if is_rounded else 0)}
    if setting.bf16 and weight == 4 and setting.adapters is None:
        weights += 2 * model.multiplied / split  # autocast keeps its copies until the step ends
    trained = trained_parameters(model, setting)
    if setting.adapters is not None:
        weights += 4 * trained
    split = setting.ranks if engine.sharded != "nothing" else 1
    states = trained * (state_bytes(setting) + (4 if rounded else 0)) / split
    gradient = trained * (2 if rounded else 4) / split
    buckets = trained * 4 if engine.sharded == "nothing" and setting.ranks > 1 else 0
    return {"weights": weights, "gradients": gradient + buckets, "optimizer": 0.0 if engine.offloads else states}


def trained_parameters(model: Architecture, setting: Setting) -> float:
    """The parameters with a gradient: all, or those of the adapters."""
    return model.parameters if setting.adapters is None else model.adapters(*setting.adapters)


def state_bytes(setting: Setting) -> float:
    """What an optimizer keeps of each weight: 8 bytes for Adam, two numbers of four."""
    if setting.numbers_kept is not None:
        return 4.0 * setting.numbers_kept
    if "8bit" in setting.optimizer:
        return 2.0
    return 4.0 * next((count for word, count in STATES.items() if setting.optimizer.startswith(word)), 2)


def _of_pass(one: Pass, setting: Setting, learned: float, seen: float) -> float:
    """What the largest batch of a pass needs beside the weights."""
    model = one.model
    tokens = one.tokens_of_call()[1]
    size = 2 if setting.bf16 or model.bytes == 2 else 4
    head = 0.0
    if model.head == "words":
        at_once = min(tokens, HEAD_TOKENS if setting.on_cpu else HEAD_TOKENS_ON_GPU)
        head = 4.0 * HEAD_COPIES * at_once * model.vocabulary
    if not one.backward:
        return head + seen * size * tokens * model.inside
    layers = model.layers
    if setting.checkpointing:
        return head + learned * size * tokens * (layers * model.width + model.inside)
    return head + learned * size * tokens * layers * model.inside


def _of_drawing(one: Drawing, setting: Setting, seen: float) -> float:
    """What a batch of answers needs: keys and values of prompts and answers, and logits."""
    model = one.model
    size = 2 if setting.bf16 or model.bytes == 2 else 4
    batch = min(one.batch, one.rows / setting.ranks)
    read = one.texts.of_batch(batch / one.answers)[1]
    kept = (CACHE_COPIES * read + batch * one.most) * model.layers * model.cached * size
    logits = 4 * HEAD_COPIES * batch * model.vocabulary
    return kept + logits + seen * size * max(read, batch) * model.inside
