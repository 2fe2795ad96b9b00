"""Weights are where arithmetic gives the same bits, wherever a file had them."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.rewards._alignment import BYTES, align
from trimtab.rewards._packing import pack


def shifted(model, offset):
    """Puts every weight so many bytes behind a place that torch would choose."""
    for weight in model.parameters():
        room = torch.empty(weight.numel() + BYTES, dtype=weight.dtype)
        first = (-room.data_ptr() % BYTES + offset) // weight.element_size()
        moved = room[first : first + weight.numel()].view(weight.shape)
        weight.data = moved.copy_(weight.data)
    return model


def test_weights_at_any_place_give_the_same_bits(model):
    ids = torch.arange(200).reshape(4, 50)
    logits = []
    for offset in (0, 4, 8, 56):
        policy = shifted(AutoModelForCausalLM.from_pretrained(model), offset).eval()
        assert all(weight.data_ptr() % BYTES == offset for weight in policy.parameters())
        pack(policy)
        assert not any(weight.data_ptr() % BYTES for weight in policy.parameters())
        with torch.no_grad():
            logits.append(policy(ids).logits)
    assert all(torch.equal(logits[0], others) for others in logits[1:])


def test_a_tied_weight_stays_tied(model):
    config = AutoConfig.from_pretrained(model, tie_word_embeddings=True)
    policy = AutoModelForCausalLM.from_config(config)
    pack(shifted(policy, 8))
    assert policy.get_input_embeddings().weight is policy.get_output_embeddings().weight


def test_weights_that_lie_right_already_are_not_held_twice(model):
    policy = AutoModelForCausalLM.from_pretrained(model)
    align(shifted(policy, 0))
    places = [weight.data_ptr() for weight in policy.parameters()]
    align(policy)
    assert [weight.data_ptr() for weight in policy.parameters()] == places
