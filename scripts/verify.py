"""Reads every file of a store and names what is not as it was written: damaged, missing or added.

    python scripts/verify.py runs/tiny                  # a run directory, with its checkpoints and merged adapters
    python scripts/verify.py runs/tiny/dpo              # a step
    python scripts/verify.py recipes/tiny.yaml seed=7   # the steps of a recipe that have run

A plan compares sizes, and a step reads what it is made from once; this reads everything, whatever was read before.
"""

from __future__ import annotations

import argparse
import sys

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines.running import verification
from trimtab.scripts import _arguments


def main(words: list[str] | None = None) -> int:
    """0 where all is whole, 1 where anything is damaged, missing or added, 2 where there is nothing to verify."""
    parser = argparse.ArgumentParser(
        prog=None if __name__ == "__main__" else "trimtab verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="RUN", help="a run directory, a step's folder, or a recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="those that the recipe was run with")
    options = parser.parse_args(words)
    return verification.verify(_arguments.shipped(options.target), options.overrides)


if __name__ == "__main__":
    sys.exit(main())
