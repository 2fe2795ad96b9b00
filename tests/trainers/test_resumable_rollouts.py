"""The order of prompts in each epoch, on which resumption hangs, and what a sampler is asked."""

from types import SimpleNamespace

import pytest
from constrained_runs import TRAIN
from tiny_trainers import grpo_trainer

from trimtab.pipelines.trainers.resumable_rollouts import _SeedEpoch
from trimtab.pipelines.trainers.seeded_rollouts import SeededRollouts
from trimtab.pipelines.trainers.weighted_rewards import WeightedGRPOTrainer


@pytest.mark.parametrize(("epoch", "number"), [(None, 0), (0.0, 0), (0.9, 0), (1.0, 1), (2.9999999, 3)])
def test_the_sampler_is_told_the_epoch_that_begins(epoch, number):
    sampler = SimpleNamespace(epoch=None)
    _SeedEpoch(SimpleNamespace(epoch_sampler=sampler)).on_epoch_begin(None, SimpleNamespace(epoch=epoch), None)
    assert sampler.epoch == number


def test_each_epoch_of_a_trainer_has_an_order_of_its_own_which_comes_back(model, prompts, tmp_path):
    subject = grpo_trainer(WeightedGRPOTrainer, model, prompts, tmp_path, {**TRAIN, "save_strategy": "no"})
    sampler, orders = subject._get_train_sampler(), []
    for epoch in (0.0, 1.0, 0.0):
        subject.state.epoch = epoch
        subject.callback_handler.on_epoch_begin(subject.args, subject.state, subject.control)
        orders.append(list(sampler))
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] == orders[2] != orders[1]


class Upstream:
    def _generate_single_turn(self, prompt_ids, images, multimodal_fields):
        return "upstream's"


class Sampling(SeededRollouts, Upstream):
    def _drawn(self, prompts):
        return prompts


@pytest.mark.parametrize(("images", "fields", "completions"), [
    (None, {}, ([[1]], None)), (["a picture"], {}, "upstream's"), (None, {"token_type_ids": [[0]]}, "upstream's"),
])  # fmt: skip
def test_a_sampler_of_text_is_not_asked_about_pictures(images, fields, completions):
    assert object.__new__(Sampling)._generate_single_turn([[1]], images, fields) == completions
