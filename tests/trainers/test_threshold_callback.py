"""When a training that searches for thresholds evaluates, and which evaluations are told to the search."""

from types import SimpleNamespace

import pytest

from trimtab.pipelines.trainers.threshold_callback import SearchThresholds


class Search:
    """Stands for a search that asks or does not, and remembers what it was told."""

    settings = SimpleNamespace(metric="gold")

    def __init__(self, asks):
        self.asks, self.told, self.total, self.decisions = asks, [], None, []

    def begin(self, total):
        self.total = total

    def tell(self, value):
        self.told.append(value)
        self.decisions.append("a 0.5: gold 0.3")


@pytest.mark.parametrize(("asks", "step", "told"), [(True, 4, [0.3]), (False, 4, []), (True, 0, [])])
def test_only_an_evaluation_that_was_asked_for_is_told(asks, step, told, capsys):
    """That of the start comes before the policy has been driven anywhere, and the recipe may have its own."""
    search = Search(asks)
    callback, state = (
        SearchThresholds(search),
        SimpleNamespace(global_step=step, max_steps=9, is_world_process_zero=True),
    )
    callback.on_train_begin(None, state, None)
    callback.on_evaluate(None, state, None, metrics={"eval_rewards/gold/mean": 0.3})
    assert (search.told, search.total) == (told, 9)
    assert ("thresholds, step 4: a 0.5: gold 0.3" in capsys.readouterr().out) == bool(told)
    assert not search.decisions


@pytest.mark.parametrize(
    ("asks", "due", "evaluates"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_it_evaluates_when_the_search_asks_or_the_recipe_says_so(asks, due, evaluates):
    control = SimpleNamespace(should_evaluate=due)
    state = SimpleNamespace(global_step=1, is_world_process_zero=False)
    SearchThresholds(Search(asks)).on_step_end(None, state, control)
    assert control.should_evaluate == (asks or due)
