"""What curated retraining does: reward, diversity and real data, by K and share of real data.

    python benchmarks/curation_world.py           # 3 seeds of 12 arms of 6 rounds; 2 hours of a core; save=yes
    python benchmarks/curation_world.py seeds=2 rounds=3 stages.curated.temperature=0
    python benchmarks/curation_world.py arms=collapse         # a reward that sees one aspect only, and the limit
    python benchmarks/curation_world.py arms=stories recipe=recipes/stories-curated.yaml rounds=4 inputs.model=...

Every seed has its own world and language model (recipes/tiny-curated.yaml), which its arms share. The grid is K in
{2, 4, 8} by a share of real rows in {0, 0.2, 0.5}. Its controls are a choice at random (equal samples and steps) and
real rows only (as many as K = 4 would keep). The arms `collapse` choose the best of 4 by politeness alone, without
real data and with half of it, and end where the answers' different word pairs fall below half of the first round's.

The table has the policy after the last round on held-out prompts (after the last good one, where a limit has ended the
loop): every reward, KL to the start (nats per completion), different word pairs over all (distinct-2),
tokens, and the negative log-likelihood of held-out real answers (nats per token); each the mean over seeds with its
standard error. Curves of every round are on the prompts that are trained on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pictures
import recipe_runs
import stored_numbers

RECIPE = str(Path(__file__).resolve().parents[1] / "recipes" / "tiny-curated.yaml")
LOOP = "stages.curated."


def arm(k: int, real: float, *more: str) -> list[str]:
    return [f"{LOOP}num_generations={k}", f"{LOOP}real_fraction={real}", *(LOOP + word for word in more)]


WATCHED = "monitor.stop_if={kl: 1e9}"  # never met: it is there so that the last round's model is watched too
ARMS = {
    "grid": {
        **{f"K {k}, real {real}": arm(k, real, WATCHED) for k in (2, 4, 8) for real in (0, 0.2, 0.5)},
        "at random, K 4, real 0": arm(4, 0, "temperature=.inf", WATCHED),
        "at random, K 4, real 0.2": arm(4, 0.2, "temperature=.inf", WATCHED),
        "real rows only": arm(4, 1, WATCHED),
    },
    "stories": {
        **{f"K 4, real {real}": arm(4, real, WATCHED) for real in (0, 0.2, 0.5)},
        **{f"best of 4, real {real}": arm(4, real, "temperature=0", WATCHED) for real in (0, 0.5)},
        "at random, K 4, real 0.2": arm(4, 0.2, "temperature=.inf", WATCHED),
        "real rows only": arm(4, 1, WATCHED),
    },
    "collapse": {
        f"politeness, real {real}": arm(
            4, real, "reward=politeness", "temperature=0", "monitor.stop_if={distinct_2: 0.5}"
        )
        for real in (0, 0.5)
    },
}
DRAWN = ("K 2, real 0", "K 4, real 0", "K 8, real 0", "K 4, real 0.5", "at random, K 4, real 0", "real rows only")
PANELS = {"distinct_2": "distinct-2", "real_nll": "real data, nats per token"}


def main(words: list[str]) -> None:
    options = {"seeds": "3", "rounds": "6", "recipe": RECIPE, "arms": "grid", "save": "no"}
    given = dict(word.split("=", 1) for word in words)
    options |= {key: given.pop(key) for key in options if key in given}
    overrides = [
        "wandb=false",
        f"{LOOP}rounds={options['rounds']}",
        *(f"{key}={value}" for key, value in given.items()),
    ]
    found: dict[str, list[dict]] = {name: [] for name in ARMS[options["arms"]]}
    for seed in range(int(options["seeds"])):
        for name, own in ARMS[options["arms"]].items():
            found[name].append(run(options["recipe"], [f"seed={seed}", *overrides, *own]))
    recipe = (options["recipe"], ["seed=0", *overrides])
    shared = "of one language model" if options["arms"] == "stories" else "each with a world and a language model"
    seeds = f"{options['seeds']}, {shared}"
    told = {"arms": rows(found), "rounds": curves(found)}
    stored_numbers.show(f"curation-{options['arms']}", told, seeds=seeds, recipe=recipe)


def run(recipe: str, words: list[str]) -> dict:
    """One arm: the start's and the last policy's columns, and the monitors' metrics by round."""
    steps = recipe_runs.run(recipe, words)
    metrics = {name: recipe_runs.metrics(step) for name, step in steps.items()}
    policies = recipe_runs.policies(steps["evaluate"])
    result = {name: _columns(policy) for name, policy in policies.items()}
    rounds = [value for name, value in metrics.items() if name.endswith("-monitor") and "stopped" not in value]
    last = metrics["curated"]["round"]
    result["sft"]["real nll"], result["curated"]["real nll"] = (rounds[at]["real_nll"] for at in (0, last))
    return {**result, "rounds": rounds, "ended": last}


def _columns(policy: dict) -> dict[str, float]:
    rewards = {name: found["mean"] for name, found in policy["rewards"].items()}
    return {**rewards, "KL": round(policy["kl"]["mean"], 5), "distinct-2": policy["distinct_2"],
            "tokens": policy["length"]["mean"]}  # fmt: skip


def rows(found: dict[str, list[dict]]) -> list[dict[str, Any]]:
    """The start and the last policy of each arm, less that chosen at random beside the same share of real rows."""
    titles = list(next(iter(found.values()))[0]["sft"])
    ends = {name: [(each["curated"], each["ended"]) for each in runs] for name, runs in found.items()}
    start = [(each["sft"], 0) for each in next(iter(found.values()))]
    rows = []
    for name, runs in {"the start": start, **ends}.items():
        control = ends.get(f"at random, K 4, {name.rpartition(', ')[2]}", runs)
        gaps = [policy[titles[0]] - other[titles[0]] for (policy, _), (other, _) in zip(runs, control, strict=True)]
        less = {f"{titles[0]} - at random": gaps if control is not runs else ""}
        rows.append({
            "arm": name,
            **{title: [policy[title] for policy, _ in runs] for title in titles},
            **(less if any(arm.startswith("at random") for arm in found) else {}),
            "last good round": ", ".join(str(at) for _, at in runs),
        })  # fmt: skip
    return rows


def curves(found: dict[str, list[dict]]) -> list[dict[str, Any]]:
    """The first reward and PANELS over the rounds, on the prompts that are trained on."""
    reward = next(iter(next(iter(found.values()))[0]["sft"]))
    rows = []
    for key, title in {f"rewards/{reward}/mean": reward, **PANELS}.items():
        for name in [name for name in found if name in DRAWN or len(found) <= len(DRAWN)]:
            runs = [[each[key] for each in run_["rounds"]] for run_ in found[name]]
            rows.append(pictures.curve(title, "round", title, name, range(len(runs[0])), runs))
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
