"""FRUGAL and M-FAC against what they come to at the ends of their options, and Lion in its box."""

import inspect
import re
from functools import partial

import pytest
import torch
from conftest import ROOT

from trimtab.pipelines.algorithms import stepping
from trimtab.pipelines.algorithms.optimizers.frugal import Columns, Coordinates, Frugal, Span, _scattered
from trimtab.pipelines.algorithms.optimizers.m_fac import MFac, replaced

NAMES = ["embed.weight", "layers.0.up.weight", "layers.0.norm.weight", "layers.1.up.weight", "layers.2.up.weight",
         "layers.3.up.weight", "head.weight"]  # fmt: skip
SHAPES = [(9, 6), (6, 8), (6,), (8, 6), (6, 8), (6, 8), (6, 9)]
MATRICES = [1, 3, 4, 5]
SPLITS = ("blocks", "columns", "coordinates", "svd")


def model(dtype=torch.float32):
    drawn = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=drawn).to(dtype)) for shape in SHAPES]


def groups(values, decay=0.1):
    """As the Trainer makes them: none on norms."""
    return [{"params": [value for value in values if value.dim() > 1], "weight_decay": decay},
            {"params": [value for value in values if value.dim() == 1], "weight_decay": 0.0}]  # fmt: skip


def frugal(values, **keys):
    names = dict(zip(values, NAMES, strict=True))
    return Frugal(Frugal.grouped(groups(values), names), lr=1e-2, **keys)


def walk(optimizer, values, steps, first=0):
    for step in range(first, first + steps):
        drawn = torch.Generator().manual_seed(100 + step)
        for value in values:
            value.grad = torch.randn(value.shape, generator=drawn).to(value.dtype)
        optimizer.step()
    return values


def kept(optimizer, values):
    """How many numbers it keeps of these parameters."""
    entries = [entry for value in values for entry in optimizer.state.get(value, {}).values()]
    return sum(entry.numel() for entry in entries if entry.dim() > 0)


def test_at_density_1_frugal_is_adamw_to_the_bit_for_every_split():
    theirs = model()
    walk(torch.optim.AdamW(groups(theirs), lr=1e-2), theirs, 12)
    for split in SPLITS:
        ours = walk(frugal(values := model(), density=1.0, split=split, update_gap=5), values, 12)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), split


def test_between_draws_a_block_that_is_drawn_is_adamw_to_the_bit_and_one_that_is_not_has_signs():
    ours, theirs = model(), model()
    start = [value.detach().clone() for value in ours]
    optimizer = frugal(ours, density=0.5, update_gap=100, inactive_lr_scale=0.5)
    walk(optimizer, ours, 7)
    walk(torch.optim.AdamW(groups(theirs), lr=1e-2), theirs, 7)
    drawn = [index for index in MATRICES if optimizer.state.get(ours[index])]
    assert len(drawn) == 2
    for index in drawn + [index for index in range(len(SHAPES)) if index not in MATRICES]:
        assert torch.equal(ours[index], theirs[index])
    for index in set(MATRICES) - set(drawn):
        by_sign = start[index]
        for step in range(7):
            generator = torch.Generator().manual_seed(100 + step)
            gradient = [torch.randn(shape, generator=generator) for shape in SHAPES][index]
            by_sign = by_sign * (1 - 1e-2 * 0.1) - 1e-2 * 0.5 * gradient.sign()
        assert torch.allclose(ours[index], by_sign, atol=1e-6)


@pytest.mark.parametrize("split", SPLITS)
def test_at_density_0_frugal_is_sign_sgd_on_the_matrices(split):
    ours, theirs = model(), model()
    optimizer = frugal(ours, density=0.0, split=split, update_gap=2)
    walk(optimizer, ours, 5)
    for step in range(5):
        drawn = torch.Generator().manual_seed(100 + step)
        with torch.no_grad():
            for value in theirs:
                gradient = torch.randn(value.shape, generator=drawn)
                value.mul_(1 - 1e-2 * 0.1).add_(gradient.sign(), alpha=-1e-2)
    assert all(torch.equal(ours[index], theirs[index]) for index in MATRICES)
    assert kept(optimizer, [ours[index] for index in MATRICES]) == 0


@pytest.mark.parametrize("part", [
    Columns(torch.tensor([1, 4])), Coordinates(_scattered(48, 13, "x", torch.device("cpu"))),
    Span(torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(3)))[0], True),
    Span(torch.linalg.qr(torch.randn(8, 3, generator=torch.Generator().manual_seed(4)))[0], False),
], ids=["columns", "coordinates", "rows' span", "columns' span"])  # fmt: skip
def test_the_parts_are_orthogonal_and_come_to_the_whole(part):
    gradient = torch.randn(6, 8, generator=torch.Generator().manual_seed(5))
    inside = part.inside(gradient)
    lifted = torch.zeros_like(gradient)
    part.add(lifted, inside)
    rest = part.rest(gradient, inside)
    assert torch.allclose(lifted + rest, gradient, atol=1e-6)
    assert abs((lifted * rest).sum().item()) < 1e-5
    assert lifted.norm() > 0 < rest.norm()


def test_scattered_places_are_all_different():
    for size, count in ((48, 48), (7, 3), (1, 1), (1000, 250)):
        places = _scattered(size, count, f"{size}", torch.device("cpu"))
        assert len(set(places.tolist())) == count
        assert 0 <= int(places.min()) <= int(places.max()) < size
    assert not torch.equal(
        _scattered(1000, 250, "a", torch.device("cpu")), _scattered(1000, 250, "b", torch.device("cpu"))
    )


@pytest.mark.parametrize("split", ["blocks", "columns", "coordinates"])
@pytest.mark.parametrize("density", [0.25, 0.5])
def test_what_is_kept_of_the_matrices_is_the_density_times_adams(split, density):
    values = model()
    matrices = [values[index] for index in MATRICES]
    optimizer = frugal(values, density=density, split=split)
    walk(optimizer, values, 2)
    adam = 2 * sum(value.numel() for value in matrices)
    exact = (
        density * adam if split != "columns" else sum(2 * v.shape[0] * round(density * v.shape[1]) for v in matrices)
    )
    assert kept(optimizer, matrices) == exact
    assert Frugal.numbers_kept({"density": density}) == 2 * density


def test_a_new_draw_begins_without_moments_and_keeps_those_of_embeddings():
    values = model()
    optimizer = frugal(values, density=0.5, update_gap=4)
    drawn = []
    for first in range(0, 24, 4):
        walk(optimizer, values, 4, first)
        drawn.append({index for index in MATRICES if optimizer.state.get(values[index])})
        assert {int(optimizer.state[values[index]]["step"]) for index in drawn[-1]} == {4}
    assert len({frozenset(each) for each in drawn}) > 1
    assert int(optimizer.state[values[0]]["step"]) == 24


@pytest.mark.parametrize("keys", [
    *({"split": split, "density": 0.5, "update_gap": 4} for split in SPLITS),
    {"inner": "lion", "density": 0.5, "update_gap": 4},
], ids=str)  # fmt: skip
def test_frugal_goes_on_exactly_from_a_saved_state(keys, tmp_path):
    whole = walk(frugal(values := model(), **keys), values, 11)
    first = frugal(halfway := model(), **keys)
    walk(first, halfway, 6)
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    second = frugal(halfway, **keys)
    second.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(walk(second, halfway, 5, 6), whole, strict=True))


def test_frugals_lion_is_the_librarys():
    from pytorch_optimizer import Lion

    ours, theirs = model(), model()
    walk(frugal(ours, density=1.0, inner="lion"), ours, 8)
    walk(Lion(groups(theirs), lr=1e-2, foreach=False), theirs, 8)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


def dense(gradients, damp):
    """F^-1 g of the newest gradient, by the matrix itself."""
    rows = torch.stack(gradients)
    fisher = damp * torch.eye(rows.shape[1], dtype=rows.dtype) + rows.T @ rows / len(rows)
    return torch.linalg.solve(fisher, rows[-1])


def test_m_fac_is_the_dense_solve_while_the_ring_fills_and_when_it_is_replaced():
    drawn = torch.Generator().manual_seed(0)
    values = [torch.nn.Parameter(torch.zeros(5, 4, dtype=torch.float64)), torch.nn.Parameter(torch.zeros(10).double())]
    optimizer = MFac(values, lr=1.0, gradients=8, damp=1e-2, momentum=0.0)
    seen = []
    for _ in range(29):  # more than three times round
        before = torch.cat([value.detach().flatten().clone() for value in values])
        seen.append(torch.randn(30, generator=drawn, dtype=torch.float64))
        values[0].grad, values[1].grad = seen[-1][:20].view(5, 4).clone(), seen[-1][20:].clone()
        optimizer.step()
        moved = before - torch.cat([value.detach().flatten() for value in values])
        assert torch.allclose(moved, dense(seen[-8:], 1e-2), atol=1e-10, rtol=0)


def test_a_replaced_row_gives_the_inverse_that_is_made_anew():
    drawn = torch.Generator().manual_seed(0)
    half = torch.randn(12, 12, generator=drawn, dtype=torch.float64)
    matrix = half @ half.T + torch.eye(12, dtype=torch.float64)
    change = torch.randn(12, generator=drawn, dtype=torch.float64)
    changed = matrix.clone()
    changed[3] += change
    changed[:, 3] += change
    changed[3, 3] -= change[3]
    assert torch.allclose(replaced(matrix.inverse(), 3, change), changed.inverse(), atol=1e-10)


def test_m_fac_goes_on_exactly_from_a_saved_state(tmp_path):
    whole = walk(MFac(groups(values := model()), lr=0.1, gradients=4), values, 11)
    first = MFac(groups(halfway := model()), lr=0.1, gradients=4)
    walk(first, halfway, 6)
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    second = MFac(groups(halfway), lr=0.1, gradients=4)
    second.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(walk(second, halfway, 5, 6), whole, strict=True))


def test_m_fac_refuses_more_than_its_limit_with_the_number():
    values = [torch.nn.Parameter(torch.zeros(1000, 1000))]
    with pytest.raises(ValueError, match=r"512 gradients of 1,000,000 weights are 2\.0 GB, and limit_gb is 1"):
        MFac(values, limit_gb=1)
    MFac.require_room(1000, gradients=1000, limit_gb=0.004)
    with pytest.raises(ValueError, match="raise `limit_gb`"):
        MFac.require_room(1001, gradients=1000, limit_gb=0.004)


@pytest.mark.parametrize(("cls", "keys", "message"), [
    (Frugal, {"density": 1.5}, "density is a share"), (Frugal, {"split": "rows"}, "split is one of"),
    (Frugal, {"update_gap": 0}, "update_gap"), (Frugal, {"betas": [0.9]}, "betas"),
    (MFac, {"gradients": 0}, "gradients is a number"), (MFac, {"damp": 0}, "damp must be above 0"),
    (MFac, {"momentum": 1}, "momentum is from 0"),
])  # fmt: skip
def test_wrong_values_are_refused(cls, keys, message):
    with pytest.raises(ValueError, match=message):
        cls(model(), **keys)


def test_lion_with_weight_decay_ends_at_the_clipped_optimum():
    from pytorch_optimizer import Lion

    target, rate = torch.tensor([3.0, -0.2, 0.5, -4.0]), 1e-3
    value = torch.nn.Parameter(torch.zeros(4))
    optimizer = Lion([value], lr=rate, weight_decay=1.0)
    for _ in range(8000):
        value.grad = value.detach() - target
        optimizer.step()
    assert torch.allclose(value.detach(), target.clamp(-1, 1), atol=3 * rate)
    outside = torch.nn.Parameter(torch.full((1,), 5.0))
    optimizer = Lion([outside], lr=rate, weight_decay=1.0)
    for _ in range(100):  # the distance to the box shrinks by 1 - lr * weight_decay in a step, or faster
        before = outside.item() - 1
        outside.grad = outside.detach() - 9.0
        optimizer.step()
        assert outside.item() - 1 <= (1 - rate) * before + 1e-6


class OfBoth(torch.optim.SGD):
    def step(self, closure=None):
        if not all(group["params"] for group in self.param_groups):
            raise IndexError("a group without parameters")
        return super().step(closure)


def test_what_an_optimizer_treats_by_itself_is_seen():
    import pytorch_optimizer as library

    def look(cls, **keys):
        return stepping.look(lambda made: cls(made, lr=stepping.RATE, **keys))

    for cls, numbers in ((torch.optim.AdamW, 2), (library.Lion, 1), (library.ScheduleFreeAdamW, 2)):
        seen = look(cls)
        assert seen.by_element, cls
        assert seen.kept == pytest.approx(numbers, abs=0.1)
    assert [look(cls).counts for cls in (torch.optim.AdamW, library.Lion, library.ADOPT)] == [False, False, True]
    assert look(OfBoth).counts
    together = (library.SOAP, library.Shampoo, torch.optim.Adafactor, library.Prodigy, MFac)
    assert not any(look(cls).by_element for cls in together)
    with pytest.raises(ValueError, match="2D"):
        look(torch.optim.Muon)


def test_the_page_names_every_key():
    page = (ROOT / "docs" / "optimizers.md").read_text()
    for cls in (Frugal, MFac):
        keys = set(inspect.signature(cls.__init__).parameters) - {"self", "params", "lr", "weight_decay"}
        assert keys <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


class Whole(torch.optim.SGD):
    def step(self, closure=None):
        raise NotImplementedError("no strategy for whole weights\nand where")


def test_whether_weights_that_are_split_can_be_stepped_is_tried_with_torchs_word_for_it():
    assert stepping.split_step_fails(partial(torch.optim.AdamW, lr=stepping.RATE)) == ""
    assert stepping.split_step_fails(partial(Whole, lr=stepping.RATE)) == "no strategy for whole weights"
