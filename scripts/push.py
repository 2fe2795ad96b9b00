"""Pushes a finished model to the hub, with its card.

    trimtab push runs/mine/dpo --dry-run                         # what would go where, and the card
    trimtab push runs/mine/dpo --to my-org/model --dtype bfloat16 --private
    trimtab push runs/mine/dpo --adapter                         # what LoRA has trained, without the model

Without --to the repository is YOUR-NAME/RECIPE-STAGE. Log in with `hf auth login`, or set HF_TOKEN.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.running import environment, pushing


def main(words: list[str] | None = None) -> int:
    """0 when it is uploaded, or would be; 2 for what is no model, or where the hub takes none."""
    parser = argparse.ArgumentParser(
        prog=None if __name__ == "__main__" else "trimtab push",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", type=Path, metavar="RUN/STAGE", help="a step in the folder of a recipe")
    parser.add_argument("--to", metavar="NAME", help="the repository, organisation included")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights that are uploaded")
    parser.add_argument("--adapter", action="store_true", help="the adapter alone")
    parser.add_argument("--private", action="store_true", help="where the repository is made anew")
    parser.add_argument("--dry-run", action="store_true", help="print what would go where, and upload nothing")
    options = parser.parse_args(words)
    environment.prepare()
    try:
        with pushing.packed(options.step, options.to, dtype=options.dtype, adapter=options.adapter) as parcel:
            print(f"{parcel}\n\n{parcel.card}" if options.dry_run else parcel)
            if not options.dry_run:
                print(pushing.send(parcel, private=options.private))
    except RecipeError as error:
        return environment.fail(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
