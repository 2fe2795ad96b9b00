"""Runs one step of a recipe, or all pending ones in this process group. This is what `accelerate launch` launches.

    python scripts/train.py recipes/tiny.yaml                                 # all pending steps, one process
    accelerate launch --config_file accelerate_configs/cpu.yaml --num_processes 2 scripts/train.py recipes/tiny.yaml
    accelerate launch --config_file accelerate_configs/ddp.yaml scripts/train.py recipes/mine.yaml --stage dpo

Large models want `scripts/run.py`, which launches every step by itself. Both leave the same artifacts.
"""

from __future__ import annotations

import sys

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines.running import orphans

orphans.die_with_launcher()  # which may die while the imports below take their seconds

from trimtab.pipelines.running import environment, runner  # noqa: E402
from trimtab.scripts import _arguments  # noqa: E402


def main(words: list[str] | None = None) -> int:
    """The exit code: see runner.train."""
    parser = _arguments.parser(__doc__, None if __name__ == "__main__" else "trimtab train")
    parser.add_argument("--stage", action="append", help="only this stage or step; may be given several times")
    parser.add_argument("--rebuild", action="store_true", help="make the artifacts again that are damaged")
    parser.add_argument("--verbose", action="store_true", help="every number of every log")
    options = parser.parse_intermixed_args(words)
    if options.verbose:
        environment.be_verbose()
    path, overrides = _arguments.recipe(parser, options)
    return runner.train(path, overrides, options.stage, rebuild=options.rebuild, trusting=options.trust)


if __name__ == "__main__":
    sys.exit(main())
