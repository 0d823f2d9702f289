"""Workers and executors die by SIGKILL at every failpoint of the ring: no row is lost, none is answered twice or
wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server._fast import slab_ring

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("ring_kill_driver.py")
STRESS = int(os.environ.get("HEADRACE_STRESS") or 0)
#: (role, failpoint) pairs that are reachable: ten for a worker, eight for an executor.
CASES = 18


def library() -> Path:
    """Where a build with failpoints is: the one in use if it has them, else the debug build if it is fresh."""
    if os.environ.get("HEADRACE_VARIANT") == "tsan":
        pytest.skip("ThreadSanitizer has nothing to say about processes: make stress")
    if slab_ring.arm_failpoint(0):
        return Path(slab_ring.__file__).parents[2]
    debug = ROOT / "build" / "debug" / "lib"
    built = max((path.stat().st_mtime for path in debug.glob("server/_fast/slab_ring*.so")), default=0)
    stems = ("slab_ring", "queue_levels", "ring_recovery", "row_shapes", "layout", "atomics", "failpoint")
    sources = [path for path in (ROOT / "server" / "_fast").glob("*") if path.stem in stems]
    if built < max(path.stat().st_mtime for path in sources):
        pytest.skip("a release build has no failpoints, and there is no debug build of these sources: make debug")
    return debug


def kill(mode: str, rounds: int, seed: int, timeout_s: float) -> None:
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(rounds), str(seed), mode],
        env={**os.environ, "PYTHONPATH": str(library())},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"{mode} rounds {rounds} seed {seed}\n{done.stderr}"
    said = json.loads(done.stdout)
    print(said)
    assert said["missing"] == []
    assert len(said["strikes"]) == CASES
    assert min(said["strikes"].values()) >= rounds
    assert said["totals"]["answered"] > 0


@pytest.mark.parametrize("mode", ["rows", "shaped", "levels"])
def test_a_death_at_every_failpoint_loses_nothing(mode: str) -> None:
    kill(mode, rounds=1, seed=1, timeout_s=60)


@pytest.mark.stress
@pytest.mark.parametrize("mode", ["rows", "shaped", "levels"])
@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_deaths_lose_nothing(seed: int, mode: str) -> None:
    kill(mode, rounds=25 * STRESS, seed=seed, timeout_s=600 * STRESS)
