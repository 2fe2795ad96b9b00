"""The reference of lists of answers, computed by the model that is trained before it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import Any

import trl

Learned = Callable[[Sequence[int]], list[bool]]  # which tokens of an answer are learned
BLOCK = 1000  # rows whose tokens are at hand at once


@contextlib.contextmanager
def untrained(trainer: Any, model: trl.ModelConfig) -> Iterator[Any]:
    """The trainer's own model before its training, or one that is loaded for now where that is not whole here."""
    from trimtab.pipelines.sampling import transformers_engine
    from trimtab.pipelines.trainers.seams.engines import sharding

    if sharding() or model.load_in_4bit or model.load_in_8bit:
        yield transformers_engine.load(model)
        return
    policy = trainer.accelerator.unwrap_model(trainer.model)
    was_training = policy.training
    yield policy.eval()
    policy.train(was_training)


def compute(trainer: Any, policy: Any, learned: Learned | None) -> None:
    """Gives the rows of a ListTrainer `ref_logps`, the policy's log-probabilities of the tokens that are learned.

    Each rank does its share, and all get everything.
    """
    for name in ("train_dataset", "eval_dataset"):
        rows = getattr(trainer, name)
        if rows is not None:
            setattr(trainer, name, rows.add_column("ref_logps", _logps(rows, policy, learned)))


def _logps(rows: Any, policy: Any, learned: Learned | None) -> list[list[float]]:
    """The log-probabilities of every row's answers, in nats."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    from trimtab.pipelines.sampling import transformers_engine

    distributed = PartialState()
    places = range(distributed.process_index, len(rows), distributed.num_processes)
    share: list[list[float]] = []
    for start in range(0, len(places), BLOCK):
        block = rows.select(places[start : start + BLOCK])
        lists = block["completion_ids"][:]
        prompts = [ids for ids, answers in zip(block["prompt_ids"][:], lists, strict=True) for _ in answers]
        answers = [answer for of_row in lists for answer in of_row]
        said = iter(transformers_engine.logprobs(policy, prompts, answers, "reference"))
        share.extend([_sum(next(said), answer, learned) for answer in of_row] for of_row in lists)
    whole: list[list[float]] = [[] for _ in range(len(rows))]
    for rank, of_rank in enumerate(gather_object([share])):
        whole[rank :: distributed.num_processes] = of_rank
    return whole


def _sum(logprobs: Sequence[float], answer: Sequence[int], learned: Learned | None) -> float:
    """The sum over the tokens that are learned."""
    return sum(logprobs) if learned is None else sum(compress(logprobs, learned(answer)))
