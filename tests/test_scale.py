"""The arithmetic of benchmarks/scale.py: what more GPUs change of a step, and what each engine keeps on a rank."""

import sys
from itertools import product

import pytest
from conftest import ROOT

from trimtab.pipelines.forecasting import machines
from trimtab.pipelines.forecasting.forecast import Forecaster

sys.path.insert(0, str(ROOT / "benchmarks"))
import scale


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """The first round of the 7B recipe, as it is planned on 8 and on 64 GPUs."""
    folder = tmp_path_factory.mktemp("scale")
    prompts = folder / "prompts.jsonl"
    prompts.write_text('{"prompt": "word word"}\n' * 3_200)
    base = scale.model(folder / "base", scale.MISTRAL)
    return {count: {step.kind: step for step in scale.planned("apo", count, prompts, base).steps} for count in (8, 64)}


def taken(steps, kind, count):
    return scale.taken(Forecaster(machines.budget(f"{count}x{scale.GPU}")), steps[min(count, 64)][kind], count)


def test_eight_times_the_gpus_draw_in_an_eighth_of_the_time_but_for_the_longest_answer(steps):
    few, many = taken(steps, "sample", 8), taken(steps, "sample", 64)
    assert few.computed == pytest.approx(8 * many.computed, rel=0.1)
    assert few.tail == many.tail > 0


def test_a_training_uses_no_more_gpus_than_its_batch_has_rows(steps):
    assert taken(steps, "prefer", 64) == taken(steps, "prefer", 512)
    assert taken(steps, "prefer", 8).computed > 4 * taken(steps, "prefer", 64).computed


def test_what_engines_share_out_is_less_on_more_gpus(steps):
    step = steps[8]["prefer"]
    peaks = {(engine, count): scale.of_engine(step, engine, count).peak
             for engine, count in product(("ddp", "fsdp2"), (8, 64))}  # fmt: skip
    assert peaks["ddp", 8] == peaks["ddp", 64]
    assert peaks["fsdp2", 64] < peaks["fsdp2", 8] < peaks["ddp", 8] / 2
