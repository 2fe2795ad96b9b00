"""What a rollout's sampler is told of the epoch, which is what the order of prompts after a resumption hangs on."""

from types import SimpleNamespace

import pytest

from trimtab.pipelines.trainers.resumable_rollouts import _SeedEpoch


@pytest.mark.parametrize(("epoch", "number"), [(None, 0), (0.0, 0), (0.9, 0), (1.0, 1), (2.9999999, 3)])
def test_the_sampler_is_told_the_epoch_that_begins(epoch, number):
    sampler = SimpleNamespace(epoch=None)
    _SeedEpoch(SimpleNamespace(epoch_sampler=sampler)).on_epoch_begin(None, SimpleNamespace(epoch=epoch), None)
    assert sampler.epoch == number
