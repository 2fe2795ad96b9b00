"""Makes the folder above importable as `trimtab`, for scripts that are run as files, installed or not."""

from __future__ import annotations

import importlib.util
import signal
import sys
from pathlib import Path

if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports: no traceback of them
ROOT = Path(__file__).resolve().parents[1]

if "trimtab" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "trimtab", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["trimtab"] = module
    spec.loader.exec_module(module)
