"""Serves any reward over OpenRLHF's HTTP contract.

    python scripts/serve_reward.py --config server.yaml
    python scripts/serve_reward.py --config server.yaml port=0 reward.target=40

    reward: {kind: reward_model, path: runs/tiny/politeness/output}    # server.yaml: any reward of the recipes

Its other keys, the requests and the answers: docs/using-rewards.md.
"""

from __future__ import annotations

import argparse
import sys

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.running import consents, environment, exits
from trimtab.rewards import RewardFailure


@exits.command
def main(words: list[str] | None = None) -> int:
    """0 after a signal, 1 when the port or the reward does not work, 2 for a mistake in the configuration."""
    program = None if __name__ == "__main__" else "trimtab serve"
    parser = argparse.ArgumentParser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="the server's YAML file")
    parser.add_argument("--trust", action="store_true", help="consent to the code that the file names, as it is now")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="port=0")
    options = parser.parse_intermixed_args(words)
    environment.prepare()
    try:
        from trimtab.pipelines.scoring.serving import serve
    except ImportError as error:
        return environment.fail(f"{error}: pip install 'trimtab[serve]'")
    try:
        document = Document.read(options.config, options.overrides)
        consents.allow(document, trusting=options.trust)
        serve(document)
    except RecipeError as error:
        return environment.fail(str(error))
    except RewardFailure as error:
        pair = "`warm_up: {prompt: ..., completion: ..., label: ...}`"
        environment.fail(f"the reward does not score the pair of {pair}: {error}")
        return 1
    except OSError as error:
        environment.fail(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
