"""Trimtab: RLHF and preference optimisation by recipes, each one file of YAML whose stages follow each other.

    trimtab run tiny                                  the pending steps of a recipe, launched one by one
    trimtab plan mistral-7b/apo                       check everything, print steps and what they will take
    trimtab train mine.yaml                           all pending steps in this process group
    trimtab verify runs/mine                          read every file that was written, name what is damaged
    trimtab ls runs                                   every step there: its names, recipes, size, age and key metric
    trimtab status mine.yaml                          what is done, what runs and how far it is, what is next
    trimtab import sft.yaml dpo.yaml -o mine.yaml     a recipe from those of TRL, axolotl, OpenRLHF, verl, ...
    trimtab compare mine.yaml                         the points of its sweep, as a table and a page
    trimtab diff mine.yaml other.yaml                 options, hashes of data and metrics that differ
    trimtab report runs/mine --live                   the page of a run, again and again while it goes
    trimtab label runs/mine                           the page of a run that waits for people
    trimtab push runs/mine/dpo --dry-run              a finished model to the hub, with its card
    trimtab prune runs                                what can go: checkpoints of finished steps, steps of no recipe
    trimtab check-rewards mine.yaml                   load and try every reward before a long run
    trimtab init --goal dpo --data pairs.jsonl --model org/model   a first recipe; without flags it asks
    trimtab schema                                    the JSON schema of recipes, for editors
    trimtab serve --config server.yaml                a reward behind HTTP
    trimtab docs                                      the reference pages of stages and rewards
    trimtab COMMAND --help

A recipe is a YAML file or the name of one that is shipped.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys

from trimtab.pipelines.planning.errors import suggest

# command -> module, and the words that it puts in front of the user's
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "run": ("run", []),
    "plan": ("run", ["--plan"]),
    "check-rewards": ("run", ["--check-rewards"]),
    "train": ("train", []),
    "verify": ("verify", []),
    "ls": ("store", ["ls"]),
    "status": ("store", ["status"]),
    "compare": ("store", ["compare"]),
    "diff": ("store", ["diff"]),
    "prune": ("store", ["prune"]),
    "serve": ("serve_reward", []),
    "import": ("import_recipe", []),
    "label": ("label", []),
    "push": ("push", []),
    "report": ("report", []),
    "init": ("init", []),
    "schema": ("schema", []),
    "docs": ("docs", []),
}


def main() -> int:
    """The exit code of the command; 2 for one that is none, and 141 where nobody reads on, as behind `| head`."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        out = select.poll()
        out.register(sys.stdout.fileno(), 0)
        if not any(event & select.POLLERR for _, event in out.poll(0)):
            raise  # of another pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left to say at the end
        return 141


def run(words: list[str]) -> int:
    """Runs the command that the words name, and returns its exit code."""
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if words[0] not in COMMANDS:
        near = suggest(words[0], COMMANDS)
        print(f"error: no command {words[0]!r}{near} (known: {', '.join(COMMANDS)})", file=sys.stderr)
        return 2
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports: no traceback of them
    name, given = COMMANDS[words[0]]
    return importlib.import_module(f"trimtab.scripts.{name}").main([*given, *words[1:]])


if __name__ == "__main__":
    sys.exit(main())
