"""Each loss over lists of answers against its closed form, against trl's if there is one, and with answers missing."""

import math
from functools import partial

import pytest
import torch
from conftest import PAIR_ROWS
from transformers import AutoModelForCausalLM

from trimtab.pipelines.algorithms import losses
from trimtab.pipelines.algorithms.preference import win_probabilities
from trimtab.pipelines.planning import kinds
from trimtab.pipelines.sampling import transformers_engine

# three answers, best first, whose log-ratios are 0.5, -0.8 and -0.1 nats
LOGPS = torch.tensor([[-3.0, -4.0, -2.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[-3.5, -3.2, -1.9]], dtype=torch.float64)
LENGTHS = torch.tensor([[2, 4, 1]])
SCORES = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64)
WINS = torch.tensor([[0.8, 0.5, 0.2]], dtype=torch.float64)
TWO = slice(None), slice(2)
EPSILON = 0.05
dpo, ipo, sppo, exo, orpo, rrhf = map(losses.named, ("dpo", "ipo", "sppo", "exo", "orpo", "rrhf"))
ALL = {
    "dpo": (partial(dpo, beta=0.5), (REFERENCE,)),
    "ipo": (partial(ipo, beta=0.5), (REFERENCE,)),
    "sppo": (partial(sppo, beta=0.5), (REFERENCE, WINS)),
    "exo": (partial(exo, beta=0.5, epsilon=EPSILON), (REFERENCE,)),
    "orpo": (partial(orpo, beta=0.5), (LENGTHS,)),
    "rrhf": (rrhf, (LENGTHS, SCORES)),
}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_dpo_by_hand():
    two = dpo(LOGPS[TWO], REFERENCE[TWO], beta=0.5)
    assert two.item() == pytest.approx(-math.log(sigmoid(0.5 * 1.3)), abs=1e-12)
    e = [math.exp(0.5 * h) for h in (0.5, -0.8, -0.1)]
    three = -math.log(e[0] / sum(e)) - math.log(e[1] / (e[1] + e[2]))
    assert dpo(LOGPS, REFERENCE, beta=0.5).item() == pytest.approx(three, abs=1e-12)


def test_margin_of_dpo_has_no_end():
    """By plain descent on both answers at a rate of 1/2 the margin m has m' = sigmoid(-m), and grows as log t."""
    logps, margins = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True), {}
    for t in range(1, 8193):
        (gradient,) = torch.autograd.grad(dpo(logps, torch.zeros_like(logps), beta=1.0).sum(), logps)
        logps = (logps - 0.5 * gradient).detach().requires_grad_()
        margins[t] = (logps[0, 0] - logps[0, 1]).item()
    for t in (1024, 2048, 4096):
        assert margins[2 * t] - margins[t] == pytest.approx(math.log(2), abs=0.01)
        assert margins[t] == pytest.approx(math.log(t), abs=0.02)


def test_gradient_of_dpo_weighs_by_how_wrong_the_order_is():
    logps = LOGPS[TWO].clone().requires_grad_()
    dpo(logps, REFERENCE[TWO], beta=0.5).sum().backward()
    weight = 0.5 * sigmoid(-0.5 * 1.3)
    assert logps.grad[0].tolist() == pytest.approx([-weight, weight], abs=1e-12)


def test_ipo_by_hand():
    gaps = [(1.3 - 1) ** 2, (0.6 - 1) ** 2, (-0.7 - 1) ** 2]  # 1 / (2 beta) = 1
    assert ipo(LOGPS[TWO], REFERENCE[TWO], beta=0.5).item() == pytest.approx(gaps[0], abs=1e-12)
    assert ipo(LOGPS, REFERENCE, beta=0.5).item() == pytest.approx(sum(gaps) / 3, abs=1e-12)


def test_sppo_by_hand():
    squares = [(0.5 - 2 * 0.3) ** 2, (-0.8 - 0) ** 2, (-0.1 + 2 * 0.3) ** 2]  # eta = 2
    two = sppo(LOGPS[TWO], REFERENCE[TWO], WINS[TWO], beta=0.5)
    assert two.item() == pytest.approx(squares[0] / 2 + squares[1] / 2, abs=1e-12)  # as released
    three = sppo(LOGPS, REFERENCE, WINS, beta=0.5)
    assert three.item() == pytest.approx(sum(squares) / 3, abs=1e-12)


def test_exo_by_hand():
    q = sigmoid(0.5 * 1.3)
    two = q * math.log(q / (1 - EPSILON)) + (1 - q) * math.log((1 - q) / EPSILON)
    loss, _ = ALL["exo"]
    assert loss(LOGPS[TWO], REFERENCE[TWO]).item() == pytest.approx(two, abs=1e-12)
    e = [math.exp(0.5 * h) for h in (0.5, -0.8, -0.1)]
    q, p = [x / sum(e) for x in e], [1 - EPSILON, EPSILON / 2, EPSILON / 2]
    three = sum(a * math.log(a / b) for a, b in zip(q, p, strict=True))
    assert loss(LOGPS, REFERENCE).item() == pytest.approx(three, abs=1e-12)


def test_exo_ends_at_a_finite_margin():
    """E2: beta (h_0 - h_1) = log((1 - epsilon) / epsilon), where the loss and its gradient are 0."""
    logps = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logps], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-16,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure():
        optimiser.zero_grad()
        loss = exo(logps, torch.zeros_like(logps), beta=0.5, epsilon=EPSILON).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    margin = 0.5 * (logps[0, 0] - logps[0, 1]).item()
    assert margin == pytest.approx(math.log((1 - EPSILON) / EPSILON), abs=1e-6)
    assert closure().item() == pytest.approx(0, abs=1e-12)


def test_orpo_by_hand():
    """Tokens of probability 1/2, 1/5 and 1/3 have odds 1, 1/4 and 1/2."""
    logps = torch.tensor([[2 * math.log(1 / 2), 4 * math.log(1 / 5), math.log(1 / 3)]], dtype=torch.float64)
    two = orpo(logps[TWO], LENGTHS[TWO], beta=0.5)
    assert two.item() == pytest.approx(-math.log(1 / 2) - 0.5 * math.log(sigmoid(math.log(4))), abs=1e-12)
    pairs = [-math.log(sigmoid(math.log(ratio))) for ratio in (4, 2, 1 / 2)]
    three = orpo(logps, LENGTHS, beta=0.5)
    assert three.item() == pytest.approx(-math.log(1 / 2) + 0.5 * sum(pairs) / 3, abs=1e-12)


def test_orpo_of_a_certain_answer_is_finite():
    logps = torch.tensor([[0.0, -1.0]], requires_grad=True)
    loss = orpo(logps, torch.ones(1, 2), beta=0.5)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logps.grad).all()


def test_rrhf_by_hand():
    """Means -1.5, -1 and -2: only the first two stand in the wrong order, by 0.5."""
    logps = LOGPS.clone().requires_grad_()
    loss = rrhf(logps, LENGTHS, SCORES)
    assert loss.item() == pytest.approx(0.5 + 1.5, abs=1e-12)
    loss.sum().backward()
    assert logps.grad[0].tolist() == [-1 / 2 - 1 / 2, 1 / 4, 0]
    tied = torch.tensor([[3.0, 3.0, 1.0]], dtype=torch.float64)
    assert rrhf(LOGPS, LENGTHS, tied).item() == pytest.approx(1.5, abs=1e-12)


def test_every_loss_of_the_folder_is_tested():
    """`plackett_luce` is `dpo` by another name."""
    assert losses.named("plackett_luce") is dpo
    assert {*ALL, "plackett_luce"} == set(kinds.words(kinds.LOSSES))


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_finite_differences(name):
    loss, rest = ALL[name]
    logps = torch.cat([LOGPS, LOGPS + torch.tensor([[0.3, -0.9, 0.2]])]).requires_grad_()
    rest = [value.repeat(2, 1) for value in rest]
    assert torch.autograd.gradcheck(lambda x: loss(x, *rest), logps)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("there", [2, 3])
def test_a_missing_answer_changes_nothing(name, there):
    """Neither the loss of its own row nor a gradient, whatever stands in its place."""
    loss, rest = ALL[name]
    cut = [value[:, :there] for value in (LOGPS, *rest)]
    alone = cut[0].clone().requires_grad_()
    expected = loss(alone, *cut[1:])
    expected.sum().backward()
    present = torch.arange(5)[None] < torch.tensor([[there], [5]])
    padded = [torch.cat([value, torch.full((1, 5 - there), filler, dtype=value.dtype)], 1)
              for value, filler in zip(cut, (7.0, *(0, 9)[: len(rest)]), strict=True)]  # fmt: skip
    rows = [torch.cat([value, torch.full_like(value, 1)]) for value in padded]  # beside a row of five
    rows[0][1] = -torch.arange(1, 6)
    rows[0].requires_grad_()
    found = loss(rows[0], *rows[1:], present=present)
    found.sum().backward()
    assert found[0].item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(rows[0].grad[0, :there], alone.grad[0], atol=1e-12, rtol=0)
    assert not rows[0].grad[0, there:].any()
    assert torch.isfinite(rows[0].grad).all()


@pytest.mark.parametrize("name", ALL)
def test_a_row_of_one_answer_is_finite(name):
    loss, rest = ALL[name]
    assert torch.isfinite(loss(LOGPS, *rest, present=torch.tensor([[True, False, False]]))).all()


@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "exo_pair"])
def test_two_answers_are_trls_own_loss(kind, model, tmp_path):
    """The same batch through DPOTrainer, with a policy that is not its reference."""
    import trl
    from datasets import Dataset

    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    args = trl.DPOConfig(str(tmp_path), beta=0.3, loss_type=kind, label_smoothing=EPSILON * (kind == "exo_pair"),
                         use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=4,
                         gradient_checkpointing=False)  # fmt: skip
    trainer = trl.DPOTrainer(policy, reference, args, train_dataset=Dataset.from_list(PAIR_ROWS))
    batch = next(iter(trainer.get_train_dataloader()))
    policy.eval()
    with torch.no_grad():
        theirs = trainer.compute_loss(policy, dict(batch)).item()

    prompts, answers = [], []
    for ids, seen, answer in zip(*(batch[key] for key in ("input_ids", "attention_mask", "completion_mask")),
                                 strict=True):  # fmt: skip
        prompts.append(ids[seen.bool() & ~answer.bool()].tolist())
        answers.append(ids[answer.bool()].tolist())

    def sums(of):
        chosen, rejected = torch.tensor(
            [sum(found) for found in transformers_engine.logprobs(of, prompts, answers)]
        ).chunk(2)
        return torch.stack([chosen, rejected], dim=1)

    ours, stored = sums(policy), sums(reference)
    lengths = torch.stack(torch.tensor([len(answer) for answer in answers]).chunk(2), dim=1)
    losses_of = {
        "sigmoid": lambda: dpo(ours, stored, beta=0.3),
        "ipo": lambda: ipo(ours / lengths, stored / lengths, beta=0.3),  # trl's is on means over tokens
        "exo_pair": lambda: exo(ours, stored, beta=0.3, epsilon=EPSILON),
    }
    assert losses_of[kind]().mean().item() == pytest.approx(theirs, abs=1e-5)
    assert (ours - stored).abs().max() > 0.1


def test_sppo_is_multiplicative_weights_on_a_table():
    """A7: free log-probabilities end at pi_t exp(eta (P(y > pi_t) - 1/2)); normalised, at pi_t exp(eta P) / Z."""
    draw, eta = torch.Generator().manual_seed(0), 1.7
    policy = torch.rand(1, 6, dtype=torch.float64, generator=draw).softmax(-1)
    strength = torch.randn(6, 6, dtype=torch.float64, generator=draw)
    beats = torch.sigmoid(strength - strength.T)  # P(i > j), not transitive
    wins = policy @ beats.T
    free = policy.log().clone().requires_grad_()
    optimiser = torch.optim.LBFGS([free], max_iter=100, tolerance_grad=1e-14, tolerance_change=1e-16)

    def closure():
        optimiser.zero_grad()
        loss = sppo(free, policy.log(), wins, beta=1 / eta).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(free.exp(), policy * torch.exp(eta * (wins - 0.5)), atol=1e-8, rtol=0)
    weights = policy * torch.exp(eta * wins)
    torch.testing.assert_close(free.softmax(-1), weights / weights.sum(), atol=1e-8, rtol=0)


def test_probabilities_of_winning():
    """The comparison of an answer with itself counts one half, so they average one half."""
    found = win_probabilities([2.0, 0.0, -1.0])
    assert found[0] == pytest.approx((0.5 + sigmoid(2) + sigmoid(3)) / 3, abs=1e-12)
    assert sum(found) / 3 == pytest.approx(0.5, abs=1e-12)
    assert win_probabilities([0.2, 0.0, -0.1], scale=10) == pytest.approx(found, abs=1e-12)
    assert win_probabilities([1.0, 1.0]) == [0.5, 0.5]
