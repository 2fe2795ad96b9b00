"""Names of models and data in recipes of others, which may lie on another machine or be the hub's short names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import hub

YOURS = "your"  # the organisation of what is not here: a plan notes it, and a run refuses it
SHORT = {  # names that the hub once had without an organisation
    "gpt2": "openai-community/gpt2",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-xl": "openai-community/gpt2-xl",
    "gsm8k": "openai/gsm8k",
    "imdb": "stanfordnlp/imdb",
    "openai_summarize_tldr": "CarperAI/openai_summarize_tldr",
    "wiki_qa": "microsoft/wiki_qa",
    "wikitext": "Salesforce/wikitext",
}
SPLITS = {"train", "test", "val", "validation", "eval", "dev"}  # names of files that say nothing of the data
FOLDERS = re.compile(  # first parts of paths that are no organisation of the hub's
    r"^(?:data|outputs?|saves?|checkpoints?|ckpts?|results?|exp|models?|runs|logs|datasets?)/"
)


def settle(name: Any, folder: Path = Path()) -> tuple[str, str]:
    """A name as a plan takes it, and what to do about it: "" where it is one of the hub's, or a path that is here."""
    text = str(name).strip().removeprefix("file://")
    if Path(text).expanduser().exists() and "$" not in text:
        return text, ""
    if not Path(text).is_absolute() and (folder / text).exists():
        return str(folder / text), ""
    if text in SHORT:
        return SHORT[text], ""
    if hub.is_name(text) and not FOLDERS.match(text) and not re.match(r"^[.~$]", text):
        return text, ""
    path = Path(re.sub(r"\.(?:jsonl?|parquet|csv|txt|py)$", "", text.rstrip("/")))
    last = f"{path.parent.name}-{path.name}" if path.name in SPLITS and path.parent.name else path.name
    last = re.sub(r"[^\w.-]+", "-", last).strip("-.") or "it"
    return f"{YOURS}/{last}", f"{text} is not here: put its path or its hub name in the place of {YOURS}/{last}"
