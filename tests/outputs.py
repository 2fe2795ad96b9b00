"""What steps leave behind, read for comparison."""

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM

from trimtab.pipelines.recording import artifacts


def rows_of(step):
    """The rows of a step's dataset."""
    return pq.read_table(step.output / "train.parquet").to_pylist()


def metrics_of(step):
    """The metrics of a step that is done."""
    return artifacts.read_done(step.dir)["metrics"]


def logits(folder, auto=AutoModelForCausalLM):
    """The logits of a saved model for a fixed sequence of tokens, in float32."""
    ids = torch.arange(12)[None] + 20
    with torch.no_grad():
        return auto.from_pretrained(folder, dtype=torch.float32).eval()(input_ids=ids).logits
