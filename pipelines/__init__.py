"""The pipeline, room by room; imports run from the bottom of this list to its top, never the other way.

    algorithms/   pure mathematics, torch at most
    planning/     a recipe's YAML -> a plan: documents, kinds, keys and types, references, identities, the preflight
    recording/    what a step leaves: its artifact with done.json, its metrics, wandb
    importing/    recipes of other programs -> recipes, each key accounted for
    data/         forms (the columns a stage reads), loading, the audit of rows and tokens, the tiny world
    trainers/     the trainers that TRL does not have; seams/ is where private members of other packages are touched
    sampling/     completions and log-probabilities, by transformers or vLLM, in shards that survive a kill
    training/     what every trainer-backed stage shares: arguments, fit, checkpoints, watchdog, saving
    labelling/    questions for people: the page, its server, what they have answered, files of other tools
    scoring/      completions and a reward -> outcomes; rewards tried out, and served over HTTP
    reporting/    the report's page and figures, and what it shows of a kind
    forecasting/  what a step will take: memory, disk, tokens and time
    shrinking/    any recipe with tiny models and a few rows
    stages/       one file for each kind of stage
    running/      one step, a launch, Slurm, and the lock of a run

A new stage is one new file in stages/, a new reward one in rewards/, a new preference loss one in algorithms/losses/.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the checkout or the installed package: recipes/, accelerate_configs/, ...
