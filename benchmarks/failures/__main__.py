"""What going wrong looks like in the metrics of each method: the curves of the method pages' pictures.

    python benchmarks/failures momentum              # or constrained, curated, online, optimizers; a minute at most
    python benchmarks/failures momentum save=yes     # keeps the curves

Small exact problems and networks, some of the programs beside this folder, in settings that are wrong in one thing
each; a method's are in the file of its name. Every panel has the curve of a metric that a run logs, or of what that
metric stands for, beside one that is as it should be; means over seeds. `make docs-numbers` draws them.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "scripts"))
import _checkout  # noqa: F401
import stored_numbers
import torch
from curves import SEEDS


def main(method: str) -> None:
    torch.set_num_threads(1)
    rows = importlib.import_module(method).metrics()
    for row in rows:
        print(f"{row['panel']}: {row['curve']}: {row['values'][0]:.3g} to {row['values'][-1]:.3g}")
    if "save=yes" in sys.argv:
        code = stored_numbers.imported()
        stored_numbers.store(f"failures-{method}", {"metrics": rows}, seeds=f"{SEEDS}", code=code)


if __name__ == "__main__":
    main(sys.argv[1])
