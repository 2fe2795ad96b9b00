"""Several stages as one chain: each goes on with the model that the one above it leaves."""

from __future__ import annotations

from trimtab.pipelines.importing.draft import Draft, Entry, Verdict

MODEL = "model.model_name_or_path"


def linked(drafts: list[Draft]) -> dict[str, Draft]:
    """The stages by their names, in order, referring to those above them."""
    stages: dict[str, Draft] = {}
    policy = reward = None
    for draft in drafts:
        count = sum(other.kind == draft.kind for other in stages.values())
        name = draft.kind if not count else f"{draft.kind}{count + 1}"
        if policy is not None:
            _refer(draft, MODEL, f"${policy}", f"goes on with what `{policy}` leaves")
        if reward is not None:
            _refer_rewards(draft, reward)
        stages[name] = draft
        if draft.kind == "reward":
            reward = name
        else:
            policy = name
    return stages


def _refer(draft: Draft, path: str, reference: str, why: str) -> None:
    parent, _, last = path.rpartition(".")
    was = draft.at(parent).get(last)
    draft.put(path, reference)
    draft.notes = [note for note in draft.notes if str(was) not in note.split()]
    for index, entry in enumerate(draft.entries):
        if entry.to == path:
            draft.entries[index] = Entry(entry.key, entry.value, Verdict.CHANGED, path, f"{why}; was {was}")


def _refer_rewards(draft: Draft, stage: str) -> None:
    """Puts the reward model that is trained above in the place of one that has to be named."""
    for name, block in draft.at("rewards").items():
        if block.get("kind") == "reward_model":
            _refer(draft, f"rewards.{name}.path", f"${stage}", f"the reward model that `{stage}` leaves")
