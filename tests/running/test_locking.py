"""One launcher at a time, and the second is told who the first is."""

import os
import subprocess
import sys

from conftest import ROOT

from trimtab.pipelines.running import locking


def test_second_launcher_is_refused_and_told_who_the_first_is(tmp_path):
    code = (
        "import _checkout; from trimtab.pipelines.running import locking; from pathlib import Path\n"
        f"with locking.lock(Path({str(tmp_path)!r}), 'second'): pass"
    )
    with locking.lock(tmp_path, "first command"):
        out = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert out.returncode != 0
    assert f"process {os.getpid()}" in out.stderr
    assert "first command" in out.stderr
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts").returncode == 0
