"""The critics of PPO: value heads that are part of the policy's model while it is trained, and a file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FILE = Path("critic", "model.safetensors")  # beside a policy's weights, which stay those of a plain model


class Critic(nn.Module):
    """Values (N, L, heads) of every place in the text, by a linear layer on its own trunk or on the policy's.

    The layer begins at 0: before anything is learned, every value is.
    """

    def __init__(self, width: int, heads: int, trunk: nn.Module | None = None):
        super().__init__()
        self.trunk, self.alone = trunk, False  # alone: nothing but the critics is to learn
        self.heads = nn.Linear(width, heads)
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)

    def forward(self, hidden: Tensor, inputs: dict[str, Any]) -> Tensor:
        if self.trunk is not None:
            hidden = self.trunk(**inputs, use_cache=False).last_hidden_state
        elif self.alone:
            hidden = hidden.detach()
        return self.heads(hidden.to(self.heads.weight.dtype)).float()


def is_critic(name: str) -> bool:
    """Whether a parameter of a model with a critic is the critic's."""
    return name.startswith("critic.") or ".critic." in name


def without_critic(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the policy alone."""
    return {name: value for name, value in weights.items() if not is_critic(name)}


def save(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Writes the critics among a model's weights into its folder."""
    critic = {name.partition("critic.")[2]: value for name, value in weights.items() if is_critic(name)}
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in critic.items()}, folder / FILE)


def load(critic: nn.Module, folder: Path) -> None:
    """Gives `critic` the weights that `save` has left in the folder."""
    critic.load_state_dict(load_file(folder / FILE))
