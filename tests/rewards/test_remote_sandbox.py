"""The reward `code` with a sandbox over HTTP, which speaks as SandboxFusion does."""

import re

from trimtab.rewards import RewardFailure, outcomes
from trimtab.rewards.code import Code

TESTS = ["assert a == 1", "assert b == 2"]


def score(url):
    return outcomes(Code(url=url), ["", ""], ["a = 1", "b = 2"], test_list=[TESTS] * 2)


def passes_first(handler, body):
    """Says that the first test passed and the second did not, in the words of the harness that it was sent."""
    assert body["language"] == "python"
    word = re.search(r"'word': '(\w+)'", body["code"])[1]
    said = [f"{word} {line}\n" for line in ("ready", "begun 0", "passed 0", "begun 1", "ended 0")]
    result = {"status": "Finished", "return_code": 0, "stdout": "passed 1\n" + "".join(said), "stderr": ""}
    handler.reply({"status": "Success", "run_result": result})


def is_broken(handler, body):
    handler.reply({"status": "SandboxError", "run_result": {"stdout": "", "status": "Error"}})


def ends_early(handler, body):
    handler.reply({"status": "Failed", "run_result": {"stdout": "Killed", "status": "Error"}})


def is_busy(handler, body):
    handler.reply({"error": "busy"}, 503)


def test_verdicts_come_back(serve):
    server = serve(passes_first)
    assert score(server.url) == [0.5, 0.5]
    assert len(server.seen) == 2


def test_a_broken_sandbox_is_a_failure_and_no_zero(serve):
    for fault, said in [(is_broken, "no run_result"), (ends_early, "before the program began"), (is_busy, "503")]:
        scores = score(serve(fault).url)
        assert all(isinstance(outcome, RewardFailure) for outcome in scores)
        assert said in scores[0].reason


def test_a_busy_sandbox_is_asked_again(serve):
    assert score(serve(is_busy, passes_first).url) == [0.5, 0.5]
