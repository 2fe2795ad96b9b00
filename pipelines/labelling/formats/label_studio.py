"""Label Studio's tasks, with the labelling interface that they need, and its export as JSON.

The interface has a Choices tag `preference` of `answer_1`, ..., `tie` and `skip`; answers of a Pairwise tag of two
texts are read, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

from trimtab.pipelines.labelling.formats import shuffled, turns
from trimtab.pipelines.labelling.questions import Sheet

ANSWER, SIDES = "answer_", ("left", "right")


def recognises(content: Any) -> bool:
    """Whether it is a list of tasks with annotations."""
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "annotations" in content[0]


def write(sheet: Sheet) -> dict[str, str]:
    """The tasks, and the interface. Raises ValueError where several answers are to be named."""
    if sheet.ranked > 1:
        raise ValueError("Label Studio's file has one best answer of each question: ask with `ranked: 1`")
    most = max(len(question.answers) for question in sheet.questions)
    names = [f"{ANSWER}{number}" for number in range(1, most + 1)]
    tasks = []
    for question in sheet.questions:
        shown = shuffled(question)
        answers = dict.fromkeys(names, "") | {
            name: question.answers[place] for name, place in zip(names, shown, strict=False)
        }
        tasks.append({"data": {"question": question.id, "shown": shown, "prompt": turns(question), **answers}})
    texts = "\n".join(f'  <Text name="{name}" value="${name}"/>' for name in names)
    choices = "\n".join(f'    <Choice value="{name}"/>' for name in (*names, "tie", "skip"))
    interface = (
        f'<View>\n  <Text name="prompt" value="$prompt"/>\n{texts}\n'
        f"  <Header value={quoteattr(sheet.instructions)}/>\n"
        f'  <Choices name="preference" toName="prompt" choice="single" showInLine="true">\n{choices}\n  </Choices>\n'
        "</View>\n"
    )
    return {"tasks.json": json.dumps(tasks, indent=1, ensure_ascii=False) + "\n", "interface.xml": interface}


def read(content: Any, sheet: Sheet) -> Iterator[dict[str, Any]]:
    """The judgements in the annotations; one that was skipped there is a skip."""
    for task in content:
        data = task["data"]
        for annotation in task["annotations"]:
            by = annotation["completed_by"]
            common = {
                "question": data["question"],
                "rater": str(by.get("email") or by["id"]) if isinstance(by, Mapping) else str(by),
                "shown": data["shown"],
                "seconds": annotation.get("lead_time"),
                "at": annotation.get("created_at"),
            }
            if annotation.get("was_cancelled"):
                yield common | {"verdict": "skip"}
            for result in annotation["result"]:
                said = _verdict(result["value"], data["shown"])
                if said and not annotation.get("was_cancelled"):
                    yield common | said


def _verdict(value: Mapping[str, Any], shown: list[int]) -> dict[str, Any] | None:
    """What a result says of the question; None for one of another tag."""
    if value.get("selected") in SIDES:
        return {"verdict": "ranked", "order": [shown[SIDES.index(value["selected"])]]}
    chosen = (value.get("choices") or [""])[0]
    if chosen in ("tie", "skip"):
        return {"verdict": chosen}
    if chosen.startswith(ANSWER):
        return {"verdict": "ranked", "order": [shown[int(chosen.removeprefix(ANSWER)) - 1]]}
    return None
