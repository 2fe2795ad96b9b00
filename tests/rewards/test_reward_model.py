"""Kind `reward_model`: the tokens it reads, the work it shares, and the checkpoints it takes or refuses."""

import json
import shutil
import weakref

import chat_templates
import pytest
import torch
from conftest import PAIR_ROWS
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trimtab.pipelines.planning import schema
from trimtab.rewards import PartlyScored, _checkpoint
from trimtab.rewards._forward import Forward
from trimtab.rewards.reward_model import encode

PROMPTS = [[{"role": "user", "content": text}] for text in ("say a", "say a", "say a and b", "b")]
ANSWERS = [[{"role": "assistant", "content": text}] for text in ("a a", "b", "a a", "a b " * 9)]


def save(folder, model, heads=1, **config):
    torch.manual_seed(0)
    made = AutoModelForSequenceClassification.from_pretrained(model, num_labels=heads)
    torch.nn.init.normal_(made.score.weight, std=1.0)
    for key, value in config.items():
        setattr(made.config, key, value)
    made.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def scorer(model, tmp_path_factory):
    return save(tmp_path_factory.mktemp("rm"), model, heads=2)


def load(path, **options):
    return schema.load_reward({"kind": "reward_model", "path": path, **options})


def score(reward, prompts=PROMPTS, answers=ANSWERS, **columns):
    return reward(prompts=prompts, completions=answers, **columns)


def by_hand(path, prompts=PROMPTS, answers=ANSWERS, head=0):
    """One row at a time through the model's own forward pass and its tokenizer's own chat template."""
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(path).eval(),
        AutoTokenizer.from_pretrained(path),
    )
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = tokenizer.apply_chat_template(prompt + answer, return_dict=True, return_tensors="pt")
        with torch.no_grad():
            found.append(model(**ids).logits[0, head].item())
    return found


@pytest.mark.parametrize("tokens_per_batch", [1, 64, 4096])
def test_scores_are_those_of_the_models_own_forward_pass(scorer, tokens_per_batch):
    reward = load(scorer, tokens_per_batch=tokens_per_batch)
    assert score(reward) == pytest.approx(by_hand(scorer), abs=1e-5)
    assert reward._checkpoint._forward.packs


def test_a_prompt_is_computed_once_for_its_completions(scorer):
    """A long prompt with eight answers: the model sees the prompt once, and the scores do not change."""
    prompts = [[{"role": "user", "content": "say a b " * 60}]] * 8
    answers = [[{"role": "assistant", "content": "a " * n}] for n in range(1, 9)]
    reward = load(scorer)
    reward.load()
    seen = []
    hook = reward._checkpoint.model.get_input_embeddings().register_forward_hook(
        lambda m, x, y: seen.append(x[0].numel())
    )
    found = score(reward, prompts, answers)
    hook.remove()
    rows = encode(reward._checkpoint.tokenizer, prompts, answers)
    assert sum(seen) < 2 * max(map(len, rows)) < sum(map(len, rows)) / 3
    assert found == pytest.approx(by_hand(scorer, prompts, answers), abs=1e-5)


def test_a_model_that_cannot_be_packed_is_asked_with_padding(scorer, monkeypatch):
    from trimtab.rewards import _packing

    monkeypatch.setattr(_packing, "_difference", lambda backbone, plain: "it moves")
    reward = load(scorer)
    assert score(reward) == pytest.approx(by_hand(scorer), abs=1e-5)
    assert not reward._checkpoint._forward.packs


def test_rewards_of_one_checkpoint_share_the_forward_pass(scorer):
    first, second = load(scorer, head=0), load(scorer, head=1)
    found = score(first)
    second.load()
    calls = []
    hook = second._checkpoint.model.register_forward_hook(lambda *a: calls.append("asked"))
    assert score(second) == pytest.approx(by_hand(scorer, head=1), abs=1e-5)
    hook.remove()
    assert calls == []
    assert score(second) != found
    assert first._checkpoint is second._checkpoint


def test_weights_leave_the_memory_with_the_last_reward(scorer):
    reward = load(scorer)
    score(reward)
    key = (scorer, "main", "float32", None)
    assert key in _checkpoint._open
    del reward
    assert key not in _checkpoint._open


def test_weights_that_a_later_step_asks_stay_in_memory_until_their_files_change(scorer, tmp_path, request):
    request.addfinalizer(lambda: _checkpoint.keep(()))
    copy = str(shutil.copytree(scorer, tmp_path / "scorer"))
    _checkpoint.keep([copy])
    reward = load(copy)
    before, kept = score(reward), weakref.ref(reward._checkpoint)
    del reward
    again = load(copy)
    assert score(again) == before
    assert again._checkpoint is kept()
    del again
    weights = load_file(f"{copy}/model.safetensors")
    save_file({**weights, "score.weight": 2 * weights["score.weight"]}, f"{copy}/model.safetensors", {"format": "pt"})
    other = load(copy)
    assert score(other) == pytest.approx([2 * value for value in before], rel=1e-4)
    assert kept() is None
    del other
    _checkpoint.keep(())
    assert not [key for key in _checkpoint._open if key[0] == copy]


def test_large_weights_are_not_kept(scorer, monkeypatch, request):
    request.addfinalizer(lambda: _checkpoint.keep(()))
    monkeypatch.setattr(_checkpoint, "SHARE", 1e-9)
    _checkpoint.keep([scorer])
    score(load(scorer))
    assert not [key for key in _checkpoint._open if key[0] == scorer]


def test_one_beginning_and_one_end_as_in_training(model, tmp_path):
    """Text gets the special tokens that trl.RewardTrainer trains with; what has them already gets no second ones."""
    import trl
    from datasets import Dataset
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(model)
    bos = "<s>"
    tokenizer.add_special_tokens({"bos_token": bos})
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    eos = tokenizer.eos_token
    (plain,) = encode(tokenizer, ["say a"], [" b"])
    assert plain[0] == tokenizer.bos_token_id
    assert plain.count(tokenizer.bos_token_id) == plain.count(tokenizer.eos_token_id) == 1
    assert encode(tokenizer, [bos + "say a"], [" b" + eos]) == [plain]
    assert encode(tokenizer, ["ignored"], ["ignored"], {"queries": [bos + "say a b" + eos]}) == [plain]

    network = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    network.resize_token_embeddings(len(tokenizer))
    args = trl.RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False)
    rows = Dataset.from_list([{"chosen": "say a b", "rejected": "say a c"}])
    trainer = trl.RewardTrainer(network, args=args, train_dataset=rows, processing_class=tokenizer)
    assert trainer.train_dataset[0]["chosen_ids"] == plain


def test_a_conversation_is_read_with_its_tools_and_one_that_the_template_refuses_fails_alone(model, tmp_path):
    tools = [{"type": "function", "function": {"name": "weather"}}]
    tokens = chat_templates.tokenizer("tools")
    tokens.chat_template += "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    folder = save(tmp_path, model, vocab_size=len(tokens))
    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    base.resize_token_embeddings(len(tokens))
    base.save_pretrained(folder)
    tokens.save_pretrained(folder)
    prompts = [PROMPTS[0], PROMPTS[0], [{"role": "system", "content": "a"}]]
    with pytest.raises(PartlyScored) as caught:
        score(load(folder), prompts, ANSWERS[:1] * 3, tools=[tools, None, None])
    first, second, refused = caught.value.outcomes
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for scored, known in ((first, tools), (second, None)):
        ids = tokens.apply_chat_template(prompts[0] + ANSWERS[0], tools=known, return_dict=True, return_tensors="pt")
        assert scored == pytest.approx(network(**ids).logits[0, 0].item(), abs=1e-5)
    assert abs(first - second) > 1e-4
    assert "the chat template says: no system" in refused.reason


def test_lora_is_loaded_with_its_head_and_scores_as_the_merged_model(model, tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    lora = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "v_proj"],
                                           init_lora_weights=False))  # fmt: skip
    lora.save_pretrained(tmp_path / "adapter")
    merged = lora.merge_and_unload()
    merged.config.pad_token_id = AutoTokenizer.from_pretrained(model).pad_token_id
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "merged")
    found = score(load(str(tmp_path / "adapter")))
    assert found == pytest.approx(by_hand(str(tmp_path / "merged")), abs=1e-5)


def test_an_adapter_without_a_head_is_refused(model, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(task_type="CAUSAL_LM", r=2))
    lora.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no trained head \(score.weight would be random\)"):
        score(load(str(tmp_path)))


def test_normalisation_is_fixed(scorer, model, tmp_path):
    raw = score(load(scorer))
    given = load(scorer, normalize={"mean": 0.5, "std": 2.0})
    assert score(given) == pytest.approx([(s - 0.5) / 2 for s in raw])
    with pytest.raises(ValueError, match=r"has no reward_calibration.json: train it with `eval_data`"):
        score(load(scorer, normalize=True))
    folder = save(tmp_path, model, heads=2)
    (tmp_path / "reward_calibration.json").write_text(json.dumps({"mean": [0.0, 1.0], "std": [1.0, 4.0]}))
    other = score(load(folder, head=1))
    assert score(load(folder, head=1, normalize=True)) == pytest.approx([(s - 1) / 4 for s in other])
    (tmp_path / "reward_calibration.json").write_text(json.dumps({"mean": [0.0, 1.0], "std": [0.0, 4.0]}))
    with pytest.raises(ValueError, match="tells no answers apart"):
        score(load(folder, normalize=True))


def test_a_row_beyond_the_context_fails_and_the_others_have_scores(model, tmp_path):
    folder = save(tmp_path, model, max_position_embeddings=30)
    with pytest.raises(PartlyScored) as caught:
        score(load(folder), PROMPTS, [*ANSWERS[:3], [{"role": "assistant", "content": "a b " * 60}]])
    *fine, long = caught.value.outcomes
    assert fine == pytest.approx(by_hand(folder, PROMPTS[:3], ANSWERS[:3]), abs=1e-5)
    assert "tokens; the context of" in long.reason


def test_a_head_that_is_not_there(scorer):
    with pytest.raises(ValueError, match="has 2 outputs; there is no head 2"):
        score(load(scorer, head=2))


def test_whole_conversations_need_no_prompt(scorer):
    whole = [row["prompt"] + row["chosen"] for row in PAIR_ROWS]
    apart = score(load(scorer), [row["prompt"] for row in PAIR_ROWS], [row["chosen"] for row in PAIR_ROWS])
    assert score(load(scorer), [[]] * len(whole), whole) == pytest.approx(apart, abs=1e-5)


def test_features_are_what_the_head_reads(scorer, tmp_path, model):
    reward = load(scorer, head=1)
    head = load_file(f"{scorer}/model.safetensors")["score.weight"][1].float()
    features = torch.tensor(reward.features(PROMPTS, ANSWERS))
    torch.testing.assert_close(features @ head, torch.tensor(reward(PROMPTS, ANSWERS)), rtol=1e-4, atol=1e-4)
    assert reward(PROMPTS, ANSWERS) == load(scorer, head=1)(PROMPTS, ANSWERS), "the head is back in its place"
    short = load(save(tmp_path / "short", model, max_position_embeddings=4))
    with pytest.raises(ValueError, match=r"tokens; the context of .* is 4"):
        short.features(PROMPTS, ANSWERS)


def test_batches_hold_what_is_computed_and_no_more():
    """Sorted rows: packed ones count what they do not share with the row before, padded ones their widest."""
    rows = [(1, 2, 3), (1, 2, 4), (1, 5), (6, 7, 8, 9)]
    forward = Forward.__new__(Forward)
    forward.packs = True
    assert forward._batches(rows, 5) == [rows[:3], rows[3:]]  # 3, 1 and 1 more; 4 of its own
    assert forward._batches(rows, 4) == [rows[:2], rows[2:3], rows[3:]]
    forward.packs = False
    assert forward._batches(sorted(rows, key=len), 6) == [[(1, 5), (1, 2, 3)], [(1, 2, 4)], [(6, 7, 8, 9)]]
    assert forward._batches([(1,) * 9], 2) == [[(1,) * 9]]  # a row beyond the budget is alone
    assert forward._batches([], 5) == []
