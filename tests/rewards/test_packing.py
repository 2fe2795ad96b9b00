"""A packed row gives what a padded batch gives: hidden states, losses, gradients, for every family that can do it."""

import copy
import logging

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from trimtab.rewards._packed_attention import SUFFIX
from trimtab.rewards._packing import pack, packed, packs

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "vocab_size": 300, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
WINDOW = {"sliding_window": 12}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 300, "resid_pdrop": 0.0,
        "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
FAMILIES = {
    "llama": ("llama", GROUPED),
    "mistral": ("mistral", GROUPED),
    "mistral with a window": ("mistral", GROUPED | WINDOW),
    "qwen2": ("qwen2", GROUPED),
    "qwen3": ("qwen3", GROUPED | {"head_dim": 8}),
    "gemma": ("gemma", GROUPED | {"head_dim": 8}),
    "gemma 3 with windows": ("gemma3_text", GROUPED | WINDOW | {"head_dim": 8}),
    "phi3": ("phi3", GROUPED),
    "olmo2": ("olmo2", GROUPED),
    "mixtral": ("mixtral", GROUPED | {"num_local_experts": 4}),
    "gpt-neox": ("gpt_neox", SIZES),
    "gpt2": ("gpt2", GPT2),
}
PADDED = {  # families that no packed row is right for
    "bert, which looks ahead": ("bert", SIZES | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}),
    "mamba, which has a state": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 300}),
    "gemma 2, whose attention has a soft cap": ("gemma2", GROUPED | {"head_dim": 8}),
}
PROMPTS = {40: (10, 20, 5), 60: (30, 8), 12: (50,)}  # tokens of a prompt, and of its answers


def make(kind, options, auto=AutoModelForCausalLM, **more):
    torch.manual_seed(0)
    return auto.from_config(AutoConfig.for_model(kind, **options, **more))


def batch(*, left: bool = False) -> dict[str, torch.Tensor]:
    """Rows of prompts with their answers, which are the labels; `left` pads the prompts in front."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for prompt, answers in PROMPTS.items():
        words = torch.randint(3, 300, (prompt + max(answers),), generator=generator)
        for number, answer in enumerate(answers):
            rows.append((prompt, torch.cat([words[:prompt], words[prompt : prompt + answer].roll(number)])))
    width = max(PROMPTS) + max(map(max, PROMPTS.values()))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for index, (prompt, tokens) in enumerate(rows):
        start = max(PROMPTS) - prompt if left else 0
        ids[index, start : start + len(tokens)], mask[index, start : start + len(tokens)] = tokens, 1
        labels[index, start + prompt : start + len(tokens)] = tokens[prompt:]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def computed(model, inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, logits of what is no padding, and gradient."""
    model.zero_grad()
    output = model(**inputs, use_cache=False)
    output.loss.backward()
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    return output.loss.detach(), output.logits.detach()[inputs["attention_mask"].bool()], gradient


def tokens_computed(model, inputs) -> int:
    """How many tokens the first layer sees."""
    seen = []
    hook = model.get_input_embeddings().register_forward_hook(lambda module, ids, output: seen.append(ids[0].numel()))
    with torch.no_grad():
        model(**inputs, use_cache=False)
    hook.remove()
    return sum(seen)


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_logits_and_gradients_are_those_of_the_padded_batch(family, left):
    model, inputs = make(*FAMILIES[family]), batch(left=left)
    expected = computed(model, inputs)
    assert packs(model)
    for got, want in zip(computed(model, inputs), expected, strict=True):
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-5)
    prompts, answers = sum(PROMPTS), sum(map(sum, PROMPTS.values()))
    assert tokens_computed(model, inputs) == prompts + answers < inputs["input_ids"].numel() / 2


@pytest.mark.parametrize("family", PADDED)
def test_what_cannot_be_packed_goes_on_as_it_was_and_says_so(family, caplog):
    kind, options = PADDED[family]
    model, inputs = make(kind, options), batch()
    model.eval()
    inputs.pop("labels")
    with torch.no_grad():
        expected = model(**inputs).logits
        with caplog.at_level(logging.WARNING):
            assert not packs(model)
        assert torch.equal(model(**inputs).logits, expected)
    looked_at = model.config._attn_implementation.endswith(SUFFIX)
    assert bool([record for record in caplog.records if "with padding" in record.message]) == looked_at


def test_gradient_checkpointing_sees_the_packing_again():
    model, inputs = make(*FAMILIES["llama"]), batch()
    expected = computed(model, inputs)
    pack(model)
    for reentrant in (False, True):
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        if reentrant:
            model.enable_input_require_grads()
        for got, want in zip(computed(model, inputs), expected, strict=True):
            assert torch.allclose(got, want, rtol=1e-4, atol=1e-5)


def test_adapters_are_trained_on_packed_rows():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make(*FAMILIES["llama"]), LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM"))
    inputs = batch()
    expected = computed(model, inputs)
    pack(model)
    for got, want in zip(computed(model, inputs), expected, strict=True):
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-5)
    assert tokens_computed(model, inputs) < inputs["input_ids"].numel() / 2


def test_a_score_is_that_of_the_last_token():
    model = make(*FAMILIES["qwen2"], auto=AutoModelForSequenceClassification, num_labels=2).eval()
    inputs = batch()
    inputs.pop("labels")
    with torch.no_grad():
        expected = model(**inputs).logits
        pack(model)
        assert torch.allclose(model(**inputs).logits, expected, atol=1e-6)


def test_bfloat16_is_as_near_as_its_arithmetic():
    model, inputs = make(*FAMILIES["llama"]).to(torch.bfloat16), batch()
    (loss, logits, _), exact = computed(model, inputs), computed(make(*FAMILIES["llama"]), inputs)
    assert packs(model)
    packed_loss, packed_logits, _ = computed(model, inputs)
    assert (packed_logits - exact[1]).norm() < 1.2 * (logits - exact[1]).norm()
    assert abs(packed_loss - loss) < 1e-2


def test_dropout_keeps_the_padding():
    """Answers that share their prompt would share its noise."""
    model, inputs = make("llama", GROUPED | {"attention_dropout": 0.1}), batch()
    state = torch.get_rng_state()
    assert not packs(model)
    assert torch.equal(torch.get_rng_state(), state)  # nothing was tried
    assert tokens_computed(model, inputs) == inputs["input_ids"].numel()
    assert packs(model.eval())
    assert tokens_computed(model, inputs) < inputs["input_ids"].numel() / 2


def test_generation_and_a_mask_with_holes_are_left_alone():
    model, inputs = make(*FAMILIES["llama"]).eval(), batch(left=True)
    asked = {key: inputs[key][:, : max(PROMPTS)] for key in ("input_ids", "attention_mask")}
    drawn = model.generate(**asked, max_new_tokens=6, do_sample=False)
    pack(model)
    assert torch.equal(model.generate(**asked, max_new_tokens=6, do_sample=False), drawn)
    inputs["attention_mask"][0, 30] = 0
    assert packed(inputs["input_ids"], inputs["attention_mask"]) is None


def test_a_copy_is_packed_with_its_own_weights_and_a_saved_model_knows_nothing_of_it(tmp_path):
    model, inputs = make(*FAMILIES["llama"]), batch()
    pack(model)
    before = computed(model, inputs)
    copied = copy.deepcopy(model)
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    assert torch.equal(computed(copied, inputs)[1], before[1])
    copied.save_pretrained(tmp_path)
    assert SUFFIX not in (tmp_path / "config.json").read_text()


def test_equal_rows_short_beginnings_and_empty_rows():
    ids = torch.arange(40).repeat(4, 1)
    ids[2, 4:] += 100  # shares less than is worth it
    mask = torch.ones_like(ids)
    mask[3] = 0
    packing = packed(ids, mask)
    own = [segment.stop - segment.start for segment in packing.segments]
    assert sorted(own) == [1, 40, 40]
    assert ids[packing.rows, packing.columns].tolist() == [*range(40), 39, *range(4), *range(104, 140)]


def test_kernels_for_rows_of_different_lengths_get_the_paths():
    inputs = batch()
    packing = packed(inputs["input_ids"], inputs["attention_mask"])
    paths, own_ends, path_ends, longest, longest_path = packing.lengths
    for index, segment in enumerate(packing.segments):
        path = paths[path_ends[index] : path_ends[index + 1]]
        row = packing.rows[segment.start]
        length = int(inputs["attention_mask"][row].sum())
        assert torch.equal(path, packing.places[row, :length])
        assert own_ends[index + 1] - own_ends[index] == segment.stop - segment.start <= longest
        assert len(path) == segment.seen <= longest_path


class Widths(TorchDispatchMode):
    """How many operations make the gradient of a slice, which has the size of all that was sliced."""

    def __init__(self):
        super().__init__()
        self.slices = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.slices += function.overloadpacket._qualified_op_name.endswith("slice_backward")
        return function(*args, **(kwargs or {}))


def test_more_answers_make_no_more_gradients_of_the_size_of_the_row():
    """Which would cost as the square of their number."""
    model = make(*FAMILIES["llama"])
    assert packs(model)
    counts = []
    for answers in (2, 8):
        ids = torch.randint(3, 300, (answers, 60), generator=torch.Generator().manual_seed(0))
        ids[:, :40] = ids[0, :40]
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, use_cache=False).loss
        with Widths() as widths:
            loss.backward()
        counts.append(widths.slices)
    assert counts[0] == counts[1]
