"""Threads of models that share a machine: from alone to many, and what they were told to have."""

from __future__ import annotations

import itertools

import pytest

from server.config import ServeConfig
from server.models.model_config import ModelConfig
from server.models.thread_share import OVERCOMMIT, instances_of, intra_op_threads


@pytest.mark.parametrize(
    ("cores", "own", "every", "expected"),
    [
        (1, 1, 1, 1),
        (1, 1, 9, 1),
        (4, 1, 1, 4),
        (4, 1, 2, 4),
        (4, 1, 4, 2),
        (4, 1, 100, 1),
        (4, 2, 2, 2),
        (4, 8, 8, 1),
        (64, 1, 20, 6),
        # Nobody counted the others.
        (4, 2, 0, 2),
    ],
)
def test_shared_out(cores: int, own: int, every: int, expected: int) -> None:
    server = ServeConfig(intra_op_threads=cores, compute_cores=cores)
    assert intra_op_threads(server, own, every) == expected


def test_all_together() -> None:
    """As many as were promised, one for each instance aside; never more than there are processors for one."""
    for cores, models in itertools.product((1, 2, 3, 8, 64), (1, 2, 3, 7, 50)):
        server = ServeConfig(intra_op_threads=cores, compute_cores=cores)
        each = intra_op_threads(server, 1, models)
        assert 1 <= each <= cores
        assert each * models <= max(OVERCOMMIT * cores, models)


def test_what_was_asked_for_is_not_shared() -> None:
    assert intra_op_threads(ServeConfig(intra_op_threads=6, compute_cores=0), 1, 50) == 6
    # With both: at most 6, shared out of two cores.
    assert intra_op_threads(ServeConfig(intra_op_threads=6, compute_cores=2), 1, 50) == 1


@pytest.mark.parametrize(
    ("config", "expected"),
    [(ModelConfig(), 3), (ModelConfig(instances=2), 2), (ModelConfig(preserve_ordering=True), 3)],
)
def test_instances(config: ModelConfig, expected: int) -> None:
    assert instances_of(config, ServeConfig(instances=3)) == expected
