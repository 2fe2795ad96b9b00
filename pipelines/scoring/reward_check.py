"""Every reward of a recipe tried out before a long run: is it there, is its head trained, how fast, what does it say?

    python scripts/run.py recipes/tiny.yaml --check-rewards

Each reward is loaded, asked about two built-in pairs of answers of which one is plainly better, and about up to 64
completions of its step where they are sampled already. A remote one is reached stage by stage: URL, DNS, TCP, HTTP,
schema.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trimtab import rewards
from trimtab.pipelines.data import loading
from trimtab.pipelines.planning import kinds, preflight, reward_blocks, schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.files import fingerprint
from trimtab.pipelines.planning.references import strings
from trimtab.pipelines.scoring import asking
from trimtab.rewards import Outcome, RewardFailure

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

SAMPLED = 64
OF_THE_ANSWER = ("prompt", "completion", "scores", "prompt_ids", "completion_ids", "vocabulary", "logprobs")  # columns
PAIRS = (
    (
        "How do I boil an egg?",
        "Bring water to a boil, lower the egg in with a spoon, and take it out after seven minutes for a soft yolk or "
        "ten for a firm one. Cool it in cold water so that it peels well.",
        "egg egg egg egg i hate this question egg egg go away egg egg egg",
    ),
    (
        "I feel nervous before my exam tomorrow. What can I do?",
        "That is normal, and it will pass. Look over your notes once more, pack your bag tonight, and sleep: rest "
        "helps more than another late hour of study. Good luck!",
        "You will fail. Exams exam the the of of of banana 7 7 7 7.",
    ),
)


def check(steps: Iterable[Step]) -> Iterator[tuple[bool, str]]:
    """(ok, lines to print) for every different reward of the steps; one that waits for a step above is ok."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    tried = set()
    for step in steps:
        for name, block in (step.options.get("rewards") or {}).items():
            identifier = fingerprint({name: step.identity["options"]["rewards"][name]})
            if identifier in tried:
                continue
            tried.add(identifier)
            head = f"{name} ({block['kind']}) of {step.stage}"
            awaited = _awaited(step, block)
            if awaited:
                yield True, f"{head}: waits for {', '.join(awaited)}"
                continue
            problems, lines = _try(step, name, block)
            yield not problems, "\n    ".join([f"{head}: {'FAILED' if problems else 'ok'}", *lines, *problems])


def _awaited(step: Step, block: Mapping[str, Any]) -> list[str]:
    """The steps that have still to make what the block names."""
    places = tuple(value for value in strings(block) if step.pending(value))
    return sorted(
        source.name for source in step.waiting if any(place.startswith(str(source.output)) for place in places)
    )


def _try(step: Step, name: str, block: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What is wrong with a reward, and what there is to say of it."""
    lines: list[str] = []
    try:
        reward = _loaded(step, name, block, lines)
    except _Unreachable:
        return ["see the stage marked `no`"], lines
    except RecipeError as error:
        return [rewards.describe(error)], lines
    except Exception as error:  # a reward of the user's may raise anything
        return [rewards.failure_of(error).reason], lines
    rows = _completions(step)
    problems: list[str] = []
    try:
        lines.append(_on_pairs(reward, rows))
    except RewardFailure as failure:
        target = kinds.find(kinds.REWARDS, block["kind"])
        foreign = "." in block["kind"] or hasattr(target, "names_code")  # may need columns that the pairs lack
        (lines if foreign and rows is None else problems).append(f"built-in pairs: {failure.reason}")
    if rows is not None:
        started = time.perf_counter()
        answers, _, _ = asking.ask(reward, name, rows, range(len(rows)))
        seconds = (time.perf_counter() - started) / len(rows)
        failures = [outcome for outcome in answers if isinstance(outcome, RewardFailure)]
        problems += [str(failure) for failure in failures[:1]]
        lines.append(f"{len(rows)} completions at {1000 * seconds:.2f} ms each: {_distribution(answers)}")
    return problems, lines


class _Unreachable(Exception):
    """A server on the way to which one stage fails."""


def _loaded(step: Step, name: str, block: Mapping[str, Any], lines: list[str]) -> Any:
    """The reward, with what it has loaded; a line for every stage on the way to its server."""
    started = time.perf_counter()
    reward = schema.load_reward(reward_blocks.cut(block, constrained=True).reward, (*step.path, "rewards", name))
    if hasattr(reward, "probe"):
        for stage, ok, detail in reward.probe():
            lines.append(f"{stage:6} {'ok' if ok else 'no'}  {detail}")
            if not ok:
                raise _Unreachable
    if hasattr(reward, "load"):
        reward.load()
    lines.append(f"loaded in {time.perf_counter() - started:.1f} s")
    return reward


def _on_pairs(reward: Any, rows: Any) -> str:
    """How fast the reward is on the built-in pairs, and in how many it prefers the better one."""
    _pairs(reward, rows, 1)  # the first call loads what is loaded late
    started = time.perf_counter()
    better, worse = (_pairs(reward, rows, which) for which in (1, 2))
    seconds = (time.perf_counter() - started) / 4
    pairs = zip(better, worse, strict=True)
    both = [(good, bad) for good, bad in pairs if good is not None and bad is not None]
    head = f"built-in pairs at {1000 * seconds:.2f} ms an answer"
    if not both:
        return f"{head}: abstains"
    right = sum(good > bad for good, bad in both)
    listed = f"better {_list(better)}; worse {_list(worse)}"
    return f"{head}: {right} of {len(both)} ranked as a person would ({listed})"


def _pairs(reward: Any, rows: Any, which: int) -> list[float | None]:
    """Scores of the better (1) or worse (2) answers, in the form of the step's own rows and with their columns."""
    prompts: list[Any] = [pair[0] for pair in PAIRS]
    completions: list[Any] = [pair[which] for pair in PAIRS]
    if rows is None or not isinstance(rows[0]["prompt"], str):
        prompts = [[{"role": "user", "content": prompt}] for prompt in prompts]
        completions = [[{"role": "assistant", "content": completion}] for completion in completions]
    extra = [] if rows is None else [key for key in rows.features if key not in OF_THE_ANSWER]
    columns: dict[str, Any] = {key: [rows[0][key]] * len(PAIRS) for key in extra}
    scores: list[float | None] = []
    for outcome in rewards.outcomes(reward, prompts, completions, **columns):
        if isinstance(outcome, RewardFailure):
            raise outcome
        scores.append(outcome)
    return scores


def _completions(step: Step) -> Any:
    """The first rows of the step's completions, or None where they are still to be sampled."""
    if step.waiting:
        return None
    stage = preflight.build(step)
    if not hasattr(stage, "completions"):
        return None
    rows = loading.load(stage.completions, (*step.path, "completions"))
    return rows.select(range(min(SAMPLED, len(rows))))


def _distribution(outcomes: Sequence[Outcome]) -> str:
    given = [outcome for outcome in outcomes if isinstance(outcome, float)]
    abstained, failed = sum(o is None for o in outcomes), sum(isinstance(o, RewardFailure) for o in outcomes)
    rest = "".join(f", {count} {word}" for count, word in ((abstained, "abstained"), (failed, "failed")) if count)
    if not given:
        return f"none scored{rest}"
    spread = f"mean {statistics.fmean(given):.3g}, std {statistics.pstdev(given):.3g}, "
    spread += f"min {min(given):.3g}, median {statistics.median(given):.3g}, max {max(given):.3g}"
    same = " (the same for all: nothing can be learned from it)" if len(set(given)) == 1 < len(given) else ""
    return spread + same + rest


def _list(scores: Sequence[float | None]) -> str:
    return ", ".join("none" if score is None else f"{score:.3g}" for score in scores)
