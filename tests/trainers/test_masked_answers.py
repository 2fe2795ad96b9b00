"""Masks on lists of answers: gradients of exactly 0, references of what is learned, rows without marks."""

import math

import pytest
import torch
from conftest import SFT_ROWS
from constrained_runs import logged
from interruptions import in_folder, killed_in_step
from launches import trained, weights
from outputs import logits, metrics_of, rows_of
from run_steps import refused, run_recipe, write_recipe
from short_trainings import TRAIN
from tiny_trainers import list_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.pipelines.algorithms.answer_masks import AnswerMask
from trimtab.pipelines.planning import kinds
from trimtab.pipelines.trainers.masked_answers import MaskedAnswers
from trimtab.rewards._packing import pack

LOSSES = kinds.words(kinds.LOSSES)
BEGIN, END = "<|thinking|>", "<|/thinking|>"


@pytest.fixture(scope="module")
def marks(thinker):
    return tuple(AutoTokenizer.from_pretrained(thinker).convert_tokens_to_ids([BEGIN, END]))


@pytest.fixture
def rows(lists, marks):
    """Lists of two answers and more, which think before they answer."""
    begin, end = marks

    def thoughtful(answers):
        return [[begin, *[9 + k] * (2 + k), end, *ids] for k, ids in enumerate(answers)]

    columns = ("prompt", "completions", "prompt_ids", "ref_logps", "win_probs", "completion_scores")
    return [
        {**{name: row[name] for name in columns}, "completion_ids": thoughtful(row["completion_ids"])}
        for row in rows_of(lists["ranked"])
    ]


@pytest.fixture
def masked(block, rows, thinker, write):
    """A stage `prefer` on them that learns what stands behind the last mark."""
    model = {"model_name_or_path": thinker}
    return {**block, "model": model, "data": write("thoughts.jsonl", rows), "mask": {"before": END}}


def mask_of(marks, **options):
    mask = AnswerMask(**options)
    return MaskedAnswers(mask, marks if mask.inside else marks[1:], 3)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", [{"before": END}, {"inside": [BEGIN, END], "share": 0.5, "keep_end": False}])
@pytest.mark.parametrize("loss", LOSSES)
def test_masked_tokens_have_no_gradient_at_all(loss, options, packed, thinker, marks, rows, tmp_path):
    """The state that a token is told from has a gradient of 0 exactly where the token is masked."""
    mask = mask_of(marks, **options)
    subject = list_trainer(thinker, rows, tmp_path, loss, mask=mask)
    if packed:
        pack(subject.model)
    batch = subject.data_collator(rows)
    answers = [answer for row in rows for answer in row["completion_ids"]]
    assert batch["learned"].sum() == sum(sum(mask(answer)) for answer in answers) < sum(map(len, answers))
    states = []

    def keep(module, args, output):
        output.last_hidden_state.retain_grad()
        states.append(output.last_hidden_state)

    subject.model.model.register_forward_hook(keep)
    subject.compute_loss(subject.model.eval(), batch).backward()
    (state,) = states
    with_gradient = state.grad.abs().sum(-1) > 0
    present = batch["attention_mask"].any(-1)
    told = batch["learned"][present][:, 1:]  # the state before it tells a token
    assert not with_gradient[:, :-1][~told].any()
    assert 0 < with_gradient.sum() <= told.sum()
    if loss not in ("rrhf", "sppo"):  # a hinge may be flat, and so may a score of one half
        assert with_gradient.sum() > 0.9 * told.sum()


def test_what_is_thought_still_changes_the_answer(thinker, marks, rows, tmp_path):
    subject = list_trainer(thinker, rows, tmp_path, mask=mask_of(marks, before=END))
    logps = []
    for thought in (9, 11):
        changed = [
            row | {"completion_ids": [[ids[0], thought, *ids[2:]] for ids in row["completion_ids"]]} for row in rows
        ]
        batch = subject.data_collator(changed)
        logps.append(subject.compute_loss(subject.model.eval(), batch, return_outputs=True)[1]["logps"])
    present = logps[0] != 0
    assert ((logps[0] - logps[1]).abs()[present] > 1e-6).all()


def even(row):
    """What EXO loses where all K answers are as likely as by the reference, a KL of even shares to its targets."""
    count = len(row["completion_ids"])
    targets = [0.99, *[0.01 / (count - 1)] * (count - 1)]
    return sum(math.log(1 / count / target) / count for target in targets)


def test_the_reference_is_of_what_is_learned(masked, rows, marks, tmp_path):
    """The policy is its own reference: with the sums of whole answers the first margins would be far from 0."""
    held_out = {"eval_data": masked["data"], "audit": {"overlap": "warn"}}
    train = {**TRAIN, "per_device_train_batch_size": len(rows)}
    block = {**masked, **held_out, "loss": "exo", "epsilon": 0.01, "train": train}
    step = run_recipe(tmp_path, {"prefer": block})["prefer"]
    first = logged(step)[0]
    assert first["train/margins"] == pytest.approx(0, abs=1e-4)
    metrics = metrics_of(step)
    answers = [answer for row in rows for answer in row["completion_ids"]]
    thoughts = sum(answer.index(marks[1]) for answer in answers)
    assert metrics["mask/eval/masked"] == metrics["mask/train/masked"]
    assert first["train/loss"] == pytest.approx(sum(map(even, rows)) / len(rows), abs=1e-3)
    assert metrics["eval/loss"] == pytest.approx(first["train/loss"], abs=0.2)  # two steps are little
    assert metrics["mask/train/masked"] == pytest.approx(thoughts / sum(map(len, answers)))
    assert metrics["mask/train/answers_unmarked"] == metrics["mask/train/rows_nothing_left"] == 0
    assert "train/rows_too_long" not in metrics


def test_the_reference_of_answers_that_others_gave_is_computed(block, lists, tmp_path, write):
    rows = [{key: value for key, value in row.items() if key != "ref_logps"} for row in rows_of(lists["ends"])]
    own = run_recipe(tmp_path, {"prefer": {**block, "data": write("bare.jsonl", rows), "reference": "computed"}})
    (tmp_path / "stored").mkdir()
    stored = run_recipe(tmp_path / "stored", {"prefer": {**block, "data": str(lists["ends"].output)}})
    torch.testing.assert_close(logits(own["prefer"].output), logits(stored["prefer"].output), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("missing", "left"), [("learn", 0), ("drop", 1)])
def test_answers_without_marks_are_counted_and_learned_or_left_out(
    missing, left, masked, rows, tmp_path, write, marks
):
    rows[2]["completion_ids"][0] = [9, 9]
    rows[3]["completion_ids"][1] = [9, marks[1]]
    mask = {"before": END, "keep_end": False, "missing": missing}
    data = write("few.jsonl", rows)
    metrics = metrics_of(run_recipe(tmp_path, {"prefer": {**masked, "data": data, "mask": mask}})["prefer"])
    assert metrics["mask/train/answers_unmarked"] == 1
    assert metrics["mask/train/rows_unmarked"] == left
    assert metrics["mask/train/rows_nothing_left"] == 1
    assert "train/rows_too_long" not in metrics


def test_masks_that_cannot_be_are_refused(masked, rows, model, tmp_path, write, capsys):
    plain = {**masked, "model": {"model_name_or_path": model}}
    told = refused(tmp_path, {"prefer": plain}, capsys)
    assert f"stages.prefer.mask.before: {END!r} is no token that was added" in told
    assert "added_tokens" in told
    told = refused(tmp_path, {"prefer": {**masked, "mask": {"before": END, "share": 0.2}}}, capsys)
    assert "stages.prefer.mask: `share` goes with `inside`" in told
    told = refused(tmp_path, {"prefer": {**masked, "reference": "stored"}}, capsys)
    assert "stages.prefer.reference: `stored`" in told
    rows[1]["completion_ids"][1] = [9]
    strict = {**masked, "data": write("strict.jsonl", rows), "mask": {"before": END, "missing": "error"}}
    assert f"stages.prefer.mask: row 1 has an answer without {END}" in refused(tmp_path, {"prefer": strict}, capsys)


def test_a_mark_that_no_step_above_adds_is_missed_in_the_plan(masked, model, tmp_path, write, capsys):
    sft = {"model": {"model_name_or_path": model}, "data": write("sft.jsonl", SFT_ROWS), "train": TRAIN}
    after = {**masked, "model": {"model_name_or_path": "$sft"}}
    told = refused(tmp_path, {"sft": sft, "prefer": after}, capsys)
    assert f"stages.prefer.mask.before: {END!r} is no token that was added" in told
    assert not [*tmp_path.glob("runs/steps/sft-*/output")], "it was told before anything was trained"
    marked = {**sft, "added_tokens": [BEGIN, END]}
    (tmp_path / "marked").mkdir()
    assert run_recipe(tmp_path / "marked", {"sft": marked, "prefer": after})["prefer"].done


@pytest.mark.slow
@pytest.mark.parametrize("mask", [{"before": END}, {"inside": [BEGIN, END], "share": 0.5}])
def test_killed_and_resumed_it_ends_with_the_weights_of_an_undisturbed_run(mask, masked, tmp_path):
    from trimtab.pipelines.trainers.lists import ListTrainer

    masked["train"] |= {"max_steps": 5, "save_steps": 2}
    block = {"prefer": {**masked, "mask": mask}}
    undisturbed = in_folder(tmp_path, "undisturbed", block)["prefer"]
    (tmp_path / "killed").mkdir()
    with killed_in_step(ListTrainer, 3):
        run_recipe(tmp_path / "killed", block)
    resumed = run_recipe(tmp_path / "killed", block)["prefer"]
    assert metrics_of(resumed)["train/resumed_from"] == 2
    assert weights(resumed) == weights(undisturbed)
    losses = [[row["train/loss"] for row in logged(step)] for step in (resumed, undisturbed)]
    assert losses[0] == losses[1]
    assert metrics_of(resumed)["mask/train/masked"] == metrics_of(undisturbed)["mask/train/masked"] > 0


def test_two_ranks_learn_what_one_does_behind_the_marks(masked, tmp_path):
    train = {**TRAIN, "max_steps": 1, "optim": "sgd", "learning_rate": 0.5, "per_device_train_batch_size": 4}
    alone = run_recipe(tmp_path, {"prefer": {**masked, "train": train}})["prefer"]
    halves = {**masked, "train": {**train, "per_device_train_batch_size": 2}}
    (tmp_path / "both").mkdir()
    both = trained(write_recipe(tmp_path / "both", {"prefer": halves}, wandb=False))["prefer"]
    torch.testing.assert_close(logits(both.output), logits(alone.output), atol=1e-5, rtol=0)


def test_added_tokens_are_whole_stay_in_the_text_and_have_rows_of_their_own(thinker, model, marks):
    tokens, before = AutoTokenizer.from_pretrained(thinker), AutoTokenizer.from_pretrained(model)
    ids = tokens(f"a{BEGIN}b{END} c")["input_ids"]
    assert [ids.count(mark) for mark in marks] == [1, 1]
    assert tokens.decode(ids, skip_special_tokens=True) == f"a{BEGIN}b{END} c"
    assert len(tokens) == len(before) + 2
    grown, small = (AutoModelForCausalLM.from_pretrained(folder) for folder in (thinker, model))
    for of_grown, of_small in zip(
        (grown.get_input_embeddings().weight, grown.get_output_embeddings().weight),
        (small.get_input_embeddings().weight, small.get_output_embeddings().weight),
        strict=True,
    ):
        assert torch.equal(of_grown[: len(before)], of_small)
        new = of_grown[len(before) :]
        assert new.shape[0] == 2
        assert not torch.equal(new[0], new[1])
        assert ((new - of_small.mean(0)).abs() <= 0.5 * of_small.std(0)).all()
    assert grown.config.vocab_size == len(tokens)


def test_sft_and_scratch_add_tokens(write, model, tmp_path, capsys):
    corpus = write("rows.jsonl", SFT_ROWS)
    blocks = {"model": {"model_name_or_path": model}, "data": corpus, "train": TRAIN, "added_tokens": [BEGIN, END]}
    small = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 2}  # fmt: skip
    scratch = {"corpus": corpus, "vocab_size": 265, "config": small, "added_tokens": [BEGIN, END]}
    steps = run_recipe(tmp_path, {"sft": blocks, "scratch": scratch, "again": {**blocks, "kind": "sft",
                       "model": {"model_name_or_path": "$scratch"}}})  # fmt: skip
    for name in ("sft", "scratch", "again"):
        tokens = AutoTokenizer.from_pretrained(steps[name].output)
        assert {BEGIN, END} <= tokens.get_added_vocab().keys()
        assert not {BEGIN, END} & set(tokens.all_special_tokens)
        assert AutoModelForCausalLM.from_pretrained(steps[name].output).config.vocab_size == len(tokens)
    assert metrics_of(steps["again-tokens"])["added"] == 0
    assert metrics_of(steps["scratch"])["vocabulary"] == 265
    lora = {**blocks, "model": {"model_name_or_path": model, "use_peft": True}}
    assert "stages.sft.added_tokens: LoRA would leave the embeddings" in refused(tmp_path, {"sft": lora}, capsys)
    whole = {"use_peft": True, "lora_r": 2, "lora_target_modules": "all-linear",
             "lora_modules_to_save": ["embed_tokens", "lm_head"]}  # fmt: skip
    (tmp_path / "lora").mkdir()
    step = run_recipe(tmp_path / "lora", {"sft": {**blocks, "model": {"model_name_or_path": model, **whole}}})
    trained_rows, begun = (
        AutoModelForCausalLM.from_pretrained(step[name].output).get_input_embeddings().weight
        for name in ("sft", "sft-tokens")
    )
    assert not torch.equal(trained_rows, begun)
    for wrong, message in (([" a"], "' a' is empty or has blanks"), (["<|end|>"], "'<|end|>' is a special token")):
        told = refused(tmp_path, {"sft": {**blocks, "added_tokens": wrong}}, capsys)
        assert f"stages.sft.added_tokens: {message}" in told
