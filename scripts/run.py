"""Runs a recipe: one `accelerate launch` per pending step, or for several small ones that are launched alike.

    python scripts/run.py recipes/tiny.yaml --plan                    # what would run, and the exact commands
    python scripts/run.py recipes/tiny.yaml --check-rewards           # load and try every reward first
    python scripts/run.py recipes/tiny.yaml --shrink                  # does it fit together? minutes, on a CPU
    python scripts/run.py recipes/tiny.yaml                           # run what is pending
    python scripts/run.py recipes/tiny.yaml stages.dpo.train.beta=0.2 --from dpo
    python scripts/run.py recipes/tiny.yaml --jobs 2                  # two steps at once, each on half of the GPUs
    python scripts/run.py recipes/tiny.yaml -- --num_processes 2      # after --: for every accelerate launch
    python scripts/run.py recipes/mine.yaml --launcher slurm --sbatch=--nodes=2 --sbatch=--gpus-per-node=8

A step that is done is never run again; a step that was interrupted continues from its newest complete checkpoint.
"""

from __future__ import annotations

import sys

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.running import consents, environment, launch
from trimtab.scripts import _arguments


def main(words: list[str] | None = None) -> int:
    """0 when every chosen step is done, 2 for a mistake in the recipe, else the failed launch's exit code."""
    words = sys.argv[1:] if words is None else words
    words, extra = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = _arguments.parser(__doc__, None if __name__ == "__main__" else "trimtab run")
    parser.add_argument("--plan", action="store_true", help="check the recipe, print the plan and stop")
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="print every number; with --plan: every key and its origin",
    )
    parser.add_argument("--check-rewards", action="store_true", help="load and try every reward, and stop")
    parser.add_argument("--shrink", action="store_true", help="tiny random models, a few rows and two steps, on a CPU")
    parser.add_argument("--only", metavar="STAGE", help="only this stage or step")
    parser.add_argument("--from", dest="start", metavar="STAGE", help="this stage or step and those after it")
    parser.add_argument("--rebuild", action="store_true", help="make the artifacts again that are damaged")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="make N steps at once")
    parser.add_argument("--launcher", choices=("local", "slurm"), default="local", help="where launches run")
    parser.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="--sbatch=--nodes=2")
    parser.add_argument("--budget", metavar="MACHINE", help="with --plan: forecast for another machine, as in 8xh100")
    options = parser.parse_intermixed_args(words)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least one")
    path, overrides = _arguments.recipe(parser, options)
    chosen = {"only": options.only, "start": options.start, "trusting": options.trust}
    sbatch = options.sbatch if options.launcher == "slurm" else None
    if options.shrink:
        from trimtab.pipelines.shrinking import recipe

        try:
            consents.load(path, overrides, trusting=options.trust)
            path, overrides = recipe.shrunk(path, overrides), []
        except RecipeError as error:
            return environment.fail(str(error))
    if options.plan:
        return launch.plan(
            path,
            overrides,
            **chosen,
            extra=extra,
            sbatch=sbatch,
            verbose=options.verbose,
            budget=options.budget,
            jobs=options.jobs,
        )
    if options.verbose:
        environment.be_verbose()
    if options.check_rewards:
        return launch.check_rewards(path, overrides, **chosen)
    return launch.run(
        path, overrides, **chosen, extra=extra, sbatch=sbatch, rebuild=options.rebuild, jobs=options.jobs
    )


if __name__ == "__main__":
    sys.exit(main())
