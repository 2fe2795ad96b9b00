"""Bytes of a rank in closed form, and what becomes more of them, and what less."""

from dataclasses import replace

import numpy as np
import pytest

from trimtab.pipelines.forecasting import amounts, architectures, memory
from trimtab.pipelines.forecasting.passes import Drawing, Pass
from trimtab.pipelines.forecasting.setting import Engine, Setting
from trimtab.pipelines.forecasting.work import Held, Rows, Work

MODEL = architectures.of_config({"model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
                                 "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 256})  # fmt: skip
PARAMETERS = MODEL.parameters
PLAIN = {
    "files": 0,
    "rows": 0,
    "models": 0,
    "trainer": 0,
    "figures": 0,
    "row": 0,
    "kept": 0.0,
    "learned": 1.0,
    "seen": 1.0,
}


def training(batch=4, tokens=32.0):
    rows = Rows(100, np.full((1, 1), tokens))
    return Work("trainer", (Held(MODEL, is_trained=True),), (Pass(MODEL, rows, 100, batch, backward=True),), 25)


def parts(setting, work=None):
    return memory.parts(work or training(), setting, PLAIN)


def test_adam_keeps_eight_bytes_of_a_weight_and_a_gradient_has_four():
    of = parts(Setting())
    assert (of["weights"], of["gradients"], of["optimizer"]) == (4 * PARAMETERS, 4 * PARAMETERS, 8 * PARAMETERS)
    assert parts(Setting(optimizer="rmsprop"))["optimizer"] == 4 * PARAMETERS
    assert parts(Setting(optimizer="sgd"))["optimizer"] == 0
    assert parts(Setting(optimizer="adamw_bnb_8bit"))["optimizer"] == 2 * PARAMETERS


def test_zero_2_splits_the_optimizer_and_zero_3_everything():
    second = parts(Setting(ranks=4, engine=Engine("optimizer")))
    assert (second["weights"], second["optimizer"]) == (4 * PARAMETERS, 2 * PARAMETERS)
    third = parts(Setting(ranks=4, engine=Engine("everything")))
    whole_layers = 2 * 4 * PARAMETERS / 4
    assert third["weights"] == PARAMETERS + whole_layers
    assert (third["gradients"], third["optimizer"]) == (PARAMETERS, 2 * PARAMETERS)
    offloaded = parts(Setting(ranks=4, engine=Engine("everything", offloads=True)))
    assert offloaded["optimizer"] == 0


def test_adapters_alone_have_gradients_and_an_optimizer():
    adapted = MODEL.adapters(8, "all-linear")
    of = parts(Setting(adapters=(8, "all-linear")))
    assert (of["gradients"], of["optimizer"]) == (4 * adapted, 8 * adapted)
    assert of["weights"] == 4 * (PARAMETERS + adapted)


def test_a_model_that_is_only_read_has_weights_alone():
    work = replace(training(), held=(Held(MODEL, is_trained=True), Held(MODEL)))
    before, after = parts(Setting()), parts(Setting(), work)
    assert after["weights"] - before["weights"] == 4 * PARAMETERS
    assert after["optimizer"] == before["optimizer"]


def test_a_model_of_a_reward_is_whole_where_the_policy_is_split():
    split = Setting(ranks=4, engine=Engine("everything"))
    policy = Held(MODEL, is_trained=True)
    whole = replace(training(), held=(policy, Held(MODEL, is_whole=True)))
    assert parts(split, whole)["weights"] - parts(split)["weights"] == 4 * PARAMETERS


def test_on_a_gpu_products_that_are_not_trained_have_two_bytes_and_drawing_reads_as_many():
    held = replace(training(), libraries="models", held=(Held(MODEL),))
    on_gpu, on_cpu = Setting(on_cpu=False, bf16=True), Setting()
    assert parts(on_cpu, held)["weights"] == 4 * PARAMETERS
    assert parts(on_gpu, held)["weights"] == 4 * PARAMETERS - 2 * MODEL.multiplied
    rows = Rows(100, np.full((1, 1), 32.0))
    drawing = replace(held, passes=(), draws=(Drawing(MODEL, rows, 100, 4, np.full(1, 8.0), 8),))
    assert amounts.weights_read(drawing, on_cpu) == 2 * amounts.weights_read(drawing, on_gpu)


@pytest.mark.parametrize("more", [training(batch=8), training(tokens=64.0)])
def test_more_rows_and_longer_ones_need_more(more):
    assert parts(Setting(), more)["batch"] > parts(Setting())["batch"]


def test_checkpointing_and_bf16_need_less_for_a_batch():
    plain = parts(Setting())["batch"]
    assert parts(Setting(checkpointing=True))["batch"] < 0.6 * plain
    assert parts(Setting(bf16=True))["batch"] < plain


def test_a_step_has_what_the_process_kept_of_the_one_before():
    kept = {**PLAIN, "kept": 1e5, "rows": 1e6, "trainer": 3e6}
    of_training = memory.parts(training(), Setting(), kept)
    left = memory.left(training(), of_training, kept)
    assert left == 3e6 + 1e5
    freed = sum(of_training.values()) - 3e6
    assert memory.left(training(), of_training, {**kept, "kept": 1e9}) == 3e6 + freed
    assert memory.parts(Work(), Setting(), kept) == {"process": 1e6, "batch": 0.0}
    assert memory.parts(Work(), Setting(), kept, left)["process"] == left
