"""The Promela model of the ring (ring.pml), searched to the end by Spin: no double owner, no lost row, no lost slab."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("ring.pml")
MEMORY_MIB = 8000
#: Under a minute on an idle core; a shared machine gets more.
PATIENCE_S = 400
WORKER, OTHER_WORKER, EXECUTOR, NOBODY = 0, 1, 2, 7

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(
        not (shutil.which("spin") and shutil.which("gcc")),
        reason="needs the model checker Spin and gcc: apt-get install spin gcc",
    ),
]


def search(folder: Path, victim: int, cancellers: int, bug: str = "") -> str:
    """What Spin says about the model; stops at the first error."""
    defines = [f"-DVICTIM={victim}", f"-DCANCELLERS={cancellers}", *([f"-D{bug}"] if bug else [])]
    options = ["-O2", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}", "-DVECTORSZ=1024"]
    for command in (["spin", *defines, "-a", str(MODEL)], ["gcc", *options, "-o", "pan", "pan.c"]):
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
    return subprocess.run(
        ["nice", "./pan", "-m500000"], cwd=folder, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    ).stdout


@pytest.mark.parametrize(
    ("victim", "cancellers"),
    [
        pytest.param(NOBODY, 3, id="nobody-dies-both-cancel"),
        pytest.param(EXECUTOR, 1, id="executor-dies-one-cancels"),
        pytest.param(EXECUTOR, 2, id="executor-dies-the-other-cancels"),
        pytest.param(WORKER, 0, id="worker-dies"),
        pytest.param(OTHER_WORKER, 0, id="other-worker-dies"),
    ],
)
def test_no_interleaving_breaks_the_ring(tmp_path: Path, victim: int, cancellers: int) -> None:
    said = search(tmp_path, victim, cancellers)
    print(*re.findall(r".*states, stored|.*elapsed time.*", said))
    assert "errors: 0" in said, said
    assert not re.search("not completed|max search depth too small|out of memory", said), said


@pytest.mark.parametrize(
    ("bug", "victim", "cancellers"),
    [
        ("BUG_JOIN_WITHOUT_STAMP", NOBODY, 3),
        ("BUG_SEAL_WITHOUT_STAMP", NOBODY, 3),
        ("BUG_STAMP_UNCHECKED", WORKER, 0),
        ("BUG_REAP_WITHOUT_STAMP", WORKER, 0),
        ("BUG_REAP_WITHOUT_RECYCLE", WORKER, 0),
        ("BUG_RECOVER_WITHOUT_RECYCLE", EXECUTOR, 2),
    ],
)
def test_the_model_finds_each_rule_missing(tmp_path: Path, bug: str, victim: int, cancellers: int) -> None:
    assert f"ifndef {bug}" in MODEL.read_text()
    assert "errors: 1" in search(tmp_path, victim, cancellers, bug)
