"""Thinking taught as in PRefLexOR, and reflection, on real stories, with a scripted teacher, over several seeds.

    python benchmarks/thinking_stories.py base=stories260K train=train.jsonl.gz test=test.jsonl.gz     # TinyStories
    python benchmarks/thinking_stories.py ... seeds=1,2,3 save=yes    # and the page's numbers

The teacher reads twenty words of a story, asks how many words it is from one of them to another, thinks by counting
them one by one, and answers with the number, from 2 to 6. It stands behind a server of its own, and the student is
sampled, taught and measured by benchmarks/thinking_stories.yaml. A row of the table is a policy: the share of held-out
questions whose answer is right (whatever was thought before it), the share that would be right if the same answers
were dealt out by chance, the gap to its control, paired by seed, the tokens of
an answer, how many have thoughts and how many words of these stand in the passage, and the pairs of the last steps of
its training that it told apart; means over seeds with standard errors.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import pyarrow.parquet as pq
import stored_numbers

from trimtab.pipelines.data import passages
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.rewards import text
from trimtab.rewards._thoughts import MARKS, split

RECIPE = Path(__file__).with_suffix(".yaml")
PORT = 8765
WORDS, NEAREST, FURTHEST = 20, 2, 6
CONTROLS = {"sft": "answers", "think": "sft", "think-reflect": "think-best"}
QUESTION = re.compile(r'How many words is it from "(\S+)" to "(\S+)"\?')


def bare(word: str) -> str:
    return re.sub(r"^\W+|\W+$", "", word)


def question(passage: str) -> str | None:
    """One about two words that stand in the passage once; None where there are none so near to each other."""
    words = list(map(bare, passage.split()))
    alone = [place for place, word in enumerate(words) if word and words.count(word) == 1]
    pairs = [(one, other) for one in alone for other in alone if NEAREST <= other - one <= FURTHEST]
    if not pairs:
        return None
    chance = Random(zlib.crc32(passage.encode()))
    gap = chance.choice(sorted({other - one for one, other in pairs}))
    one, other = chance.choice([pair for pair in pairs if pair[1] - pair[0] == gap])
    return f'{passage}\nHow many words is it from "{words[one]}" to "{words[other]}"?'


def counted(asked: str) -> list[str]:
    """The words from the one that a question names first to the one that it names last."""
    one, other = QUESTION.findall(asked)[-1]
    passage = asked.rpartition("Question: ")[2].partition("\nHow many words")[0]
    words = list(map(bare, passage.split()))
    return words[words.index(one) : words.index(other) + 1]


def thought(words: list[str]) -> str:
    return " ".join([words[0], *(f"{word} {number}" for number, word in enumerate(words[1:], 1))])


def teach(asked: str) -> str:
    """What the teacher says to a prompt of `chunks` or of `study`."""
    if "Question:" not in asked:
        return question(asked.split("Here is a text.\n\n")[1].split("\n\nWrite one question")[0]) or ""
    words = counted(asked)
    return thought(words) if "Count the words." in asked else str(len(words) - 1)


class Teacher(BaseHTTPRequestHandler):
    """OpenAI's completions, of prompts as token ids."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = self.server.tokenizer.decode(list(map(int, body["prompt"])), skip_special_tokens=True)  # type: ignore[attr-defined]
        said = json.dumps({"choices": [{"text": teach(asked), "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *about: Any) -> None:
        pass


class School(ThreadingHTTPServer):
    request_queue_size = 128


def texts(path: str) -> list[str]:
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        return [json.loads(line)["text"] for line in file]


def chat(prompt: str, completion: str) -> dict[str, Any]:
    said = {"prompt": ("user", prompt), "completion": ("assistant", completion)}
    return {name: [{"role": role, "content": content}] for name, (role, content) in said.items()}


def openings(stories: list[str]) -> Iterator[dict[str, Any]]:
    """Beginnings of stories, and how they go on."""
    for words in map(str.split, stories[:800]):
        yield chat(" ".join(words[:WORDS]), " ".join(words[WORDS : WORDS + 12]))


def critiques(stories: list[str]) -> Iterator[dict[str, Any]]:
    """Questions with thoughts and an answer of which half have lost or gained a word, and the right thoughts."""
    chance = Random(0)
    asked = filter(None, map(question, passages.cut(stories, WORDS, 0)))
    for prompt in chance.sample(list(asked), 800):
        words = counted(prompt)
        said = list(words)
        if chance.random() < 0.5:
            place = chance.randrange(1, len(words) - 1)
            said[place : place + 1] = chance.choice([[], [words[place], chance.choice(words)]])
        wrong = f"Count: {thought(said)}\n{len(said) - 1}"
        yield chat(f"{prompt}\n{wrong}\nCount again.", f"Count: {thought(words)}")


def evaluated(words: list[str]) -> dict[str, Any]:
    """What evaluation.json says of each policy of a run, and how many of its pairs it told apart in its training."""
    program = stored_numbers.ROOT / "scripts" / "train.py"
    subprocess.run([sys.executable, str(program), str(RECIPE), *words], check=True)
    steps = {step.name: step for step in Recipe.load(str(RECIPE), words).steps}
    policies = json.loads((steps["evaluate"].output / "evaluation.json").read_text())["policies"]
    for name in policies.keys() & steps.keys():
        done = json.loads((steps[name].dir / "done.json").read_text())
        policies[name]["told apart"] = done["metrics"].get("train/rewards/accuracies")
        answers = pq.read_table(steps[f"evaluate-{name}-sample"].output / "train.parquet").to_pylist()
        policies[name]["marked"], policies[name]["seen"] = thoughts(answers)
        policies[name]["chance"] = by_chance(answers)
    return policies


def by_chance(rows: list[dict[str, Any]]) -> float:
    """The share that would be right if the same answers were given to the same questions in any order."""
    said = Counter(split(text(row["completion"]), *MARKS)[1] for row in rows)
    true = Counter(row["solution"] for row in rows)
    return sum(said[answer] * true[answer] for answer in true) / len(rows) ** 2


def thoughts(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """The share of answers with thoughts between marks, and of the words of these that stand in the passage."""
    marked, seen = 0, []
    for row in rows:
        thought, _ = split(text(row["completion"]), *MARKS)
        marked += MARKS[0] in text(row["completion"]) and bool(thought)
        passage = set(map(bare, text(row["prompt"]).split()))
        seen += [word in passage for word in re.findall(r"[A-Za-z]+", thought.removeprefix("Count:"))]
    return marked / len(rows), sum(seen) / len(seen) if seen else 0.0


def table(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def right(policy: str) -> list[float]:
        return [100 * run[policy]["rewards"]["right"]["mean"] for run in runs]

    rows = []
    for policy in runs[0]:
        control = CONTROLS.get(policy)
        gaps = [mine - other for mine, other in zip(right(policy), right(control), strict=True)] if control else ""
        apart = runs[0][policy].get("told apart")
        thinks = runs[0][policy].get("marked")
        rows.append({
            "policy": f"`{policy}`",
            "right, %": right(policy),
            "by chance, %": [100 * run[policy]["chance"] for run in runs] if "chance" in runs[0][policy] else "",
            "control": f"`{control}`" if control else "",
            "gap, points": gaps,
            "tokens": [run[policy].get("spent", run[policy]["length"])["mean"] for run in runs],
            "with thoughts, %": [100 * run[policy]["marked"] for run in runs] if thinks else "",
            "thought words of the passage, %": [100 * run[policy]["seen"] for run in runs] if thinks else "",
            "pairs told apart, %": [100 * run[policy]["told apart"] for run in runs] if apart else "",
        })  # fmt: skip
    return rows


def main(words: list[str]) -> None:
    from transformers import AutoTokenizer

    given = dict(word.split("=", 1) for word in words if word != "save=yes")
    seeds = [int(seed) for seed in given.pop("seeds", "1,2,3").split(",")]
    folder = Path(given.pop("folder", "runs/thinking-stories"))
    folder.mkdir(parents=True, exist_ok=True)
    stories = texts(given["train"])
    for name, rows in {"openings": openings(stories), "critiques": critiques(stories)}.items():
        given[name] = str(folder / f"{name}.jsonl")
        Path(given[name]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = School(("127.0.0.1", int(given.pop("port", PORT))), Teacher)
    server.tokenizer = AutoTokenizer.from_pretrained(given["base"])  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given["teacher"] = f"http://127.0.0.1:{server.server_port}/v1"
    paths = {name: value if name == "teacher" else str(Path(value).resolve()) for name, value in given.items()}
    inputs = [f"inputs.{name}={value}" for name, value in paths.items()]
    runs = []
    for seed in seeds:
        overrides = ["wandb=false", f"name=thinking-stories-{seed}", f"output_dir={folder}", f"seed={seed}"]
        runs.append(evaluated([*overrides, *inputs]))
    named = f"{len(seeds)} ({', '.join(map(str, seeds))})"
    stored_numbers.show("thinking-on-stories", {"policies": table(runs)}, seeds=named)


if __name__ == "__main__":
    main(sys.argv[1:])
