"""A process that compares answers with math-verify: a line of JSON in, a line of JSON out, until the input ends.

It is a process of its own because math-verify and sympy can take forever or all memory over a few characters. The
kernel ends it when one comparison has taken its seconds of processor time: how busy the machine is does not matter.
Run by its path; it imports nothing of the package.

    {"gold": "0.5", "answer": "\\\\boxed{\\\\frac12}", "seconds": 5} -> {"gold": true, "right": true}
"""

import json
import logging
import resource
import sys
import time

MEMORY = 2 << 30


def main() -> None:
    logging.disable(logging.CRITICAL)
    import math_verify

    channel = sys.stdout
    sys.stdout = sys.stderr
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print("ready", file=channel, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        end = int(time.process_time()) + 1 + question["seconds"]
        resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
        gold = math_verify.parse(question["gold"], parsing_timeout=None)
        right = False
        if gold:
            answer = math_verify.parse(question["answer"], parsing_timeout=None)
            right = bool(answer) and math_verify.verify(gold, answer, timeout_seconds=None)
        print(json.dumps({"gold": bool(gold), "right": right}), file=channel, flush=True)


if __name__ == "__main__":
    main()
