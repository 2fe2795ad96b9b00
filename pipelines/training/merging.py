"""Adapters as models: base and adapter merged in float32 into a complete model, once for all steps of a recipe."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning import adapters, finished, manifests
from trimtab.pipelines.planning.files import file_hash, fingerprint
from trimtab.pipelines.planning.store import MERGED
from trimtab.pipelines.recording import artifacts, locks

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

logger = logging.getLogger(__name__)


def merge_adapters(stage: Any, step: Step) -> None:
    """Puts a merged model in the place of every adapter that the stage names. Every rank calls it.

    The main process merges, into `_merged/` beside the steps, under a name that says what of. Loading it is then
    the same as of any other model, on any number of ranks and by any engine.
    """
    from accelerate import PartialState

    for key, name, revision in list(adapters.models(stage)):
        adapter = adapters.find(name, revision)
        if adapter is None:
            continue
        folder = step.dir.parent / MERGED / f"{Path(name).name}-{fingerprint(adapter.identity())}"
        if PartialState().is_main_process:
            _merge_once(adapter, folder, step)
        PartialState().wait_for_everyone()
        _put(stage, key, str(folder / finished.OUTPUT))


def merge(
    adapter: Path, base: str, output: Path, *, revision: str | None = None, labels: Mapping[str, Any] | None = None
) -> None:
    """Writes a base and the adapter in a folder as a complete model into the folder `output`, in float32.

    The tokenizer is the adapter's, or that of its base. `revision` is the base's; `labels` are settings of a
    classifier's head, by default as many outputs as the adapter's own head has.
    """
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    scores = PeftConfig.from_pretrained(adapter).task_type == "SEQ_CLS"
    auto = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    head = (labels or _head(adapter)) if scores else {}
    model = auto.from_pretrained(base, revision=revision, dtype=torch.float32, ignore_mismatched_sizes=scores, **head)
    source, source_revision = adapters.source(str(adapter), None, adapters.TOKENIZER)
    tokens = AutoTokenizer.from_pretrained(source, revision=source_revision)
    if len(tokens) > model.get_input_embeddings().num_embeddings:  # the template added tokens
        model.resize_token_embeddings(len(tokens))
    model.config.pad_token_id = tokens.pad_token_id
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(output)
    tokens.save_pretrained(output)


def _merge_once(adapter: adapters.Adapter, folder: Path, step: Step) -> None:
    """Merges where that is to be done, and waits where another process is at it."""

    def told(holder: str) -> None:
        logger.warning("%s is being merged by %s. Waiting until that ends", adapter.name, holder)

    lock = locks.Lock(locks.of_folder(folder), f"{step.recipe}/{step.name}")
    with locks.held(lock, told):
        if not _is_whole(folder):
            _merge_into(adapter, folder)


def _merge_into(adapter: adapters.Adapter, folder: Path) -> None:
    """Merges and publishes as a step does, so that the model is whole or not there."""
    from trimtab.pipelines.trainers.seams.engines import whole_models

    partial = artifacts.fresh(folder)
    with whole_models():  # the other ranks load nothing
        merge(adapter.complete(), adapter.base, partial, revision=adapter.base_revision)
    artifacts.publish(folder, {"fingerprint": folder.name[-8:], "adapter": adapter.name, "base": adapter.base})


def _is_whole(folder: Path) -> bool:
    """Whether a merged model is there and as it was written; what is not is merged again."""
    with ThreadPoolExecutor(manifests.THREADS) as pool:
        damage = finished.all_damage(folder, file_hash, pool)
    if damage:
        logger.warning("%s is merged again: %s", folder, "; ".join(damage))
    return finished.damage(folder, folder.name[-8:]) is not None and not damage


def _head(adapter: Path) -> dict[str, Any]:
    """The number of outputs of the head that a classifier's adapter was saved with."""
    from peft import load_peft_weights

    saved = load_peft_weights(str(adapter), device="cpu")
    sizes = [tensor.shape[0] for name, tensor in saved.items() if name.endswith("score.weight")]
    return {"num_labels": sizes[0]} if sizes else {}


def _put(stage: Any, key: str, folder: str) -> None:
    """The model of a stage's field becomes that of a folder."""
    value = folder
    if not isinstance(getattr(stage, key), str):
        value = copy.copy(getattr(stage, key))
        value.model_name_or_path, value.model_revision = folder, "main"
    setattr(stage, key, value)
