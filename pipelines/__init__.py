"""The pipeline, room by room.

    document.py      a recipe's YAML with line numbers, overrides and where each value came from
    recipe.py        YAML -> plan: a flat tuple of steps with fingerprints (no torch)
    plugins.py       a word in the recipe -> a class; strict check of its keys and types
    errors.py        RecipeError, which names the place, and the words that people get wrong
    artifacts.py     fingerprints, done.json, atomic publication, the run lock
    preflight.py     what is checked before anything is launched, and the table of the plan
    data.py          loading datasets and auditing their rows and tokens
    parts.py         sampling in parts: data-parallel, resumable
    generation.py    sampling from a policy, and log-probabilities
    scoring.py       completions and a reward -> outcomes, kept row by row
    reward_check.py  every reward tried out before a long run
    serving.py       a reward behind HTTP; batching.py merges its requests
    checkpoints.py   which checkpoint is complete, and therefore safe to resume from
    training.py      what every trainer-backed stage shares
    tracking.py      metrics.jsonl and wandb (the only file that knows wandb)
    shrink.py        any recipe on a CPU in a minute
    plots.py         the report's figures
    seams.py         every private member of trl, transformers or accelerate that we touch
    world.py         the tiny world of the embedded recipe
    algorithms/      pure mathematics, torch at most
    trainers/        trainers that TRL does not have
    stages/          one file per kind of stage

A new stage is one new file in stages/, a new reward is one new file in rewards/.
"""
