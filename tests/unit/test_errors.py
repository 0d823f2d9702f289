"""errors.py: every error class has its meaning in the one table."""

from __future__ import annotations

import pytest

from server import errors, log


def leaves(cls: type[errors.HeadraceError]) -> set[type[errors.HeadraceError]]:
    children = cls.__subclasses__()
    return {cls} if not children else {leaf for child in children for leaf in leaves(child)}


def own_leaves() -> list[type[errors.HeadraceError]]:
    found = [leaf for leaf in leaves(errors.HeadraceError) if leaf.__module__ == errors.__name__]
    return sorted(found, key=lambda leaf: leaf.__name__)


def test_every_leaf_has_a_row_and_every_row_is_a_class_of_the_tree() -> None:
    declared = {
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.HeadraceError) and not cls.__subclasses__()
    }
    assert declared <= set(errors.OUTCOMES)
    assert all(issubclass(cls, errors.HeadraceError) for cls in errors.OUTCOMES)


@pytest.mark.parametrize("leaf", own_leaves())
def test_rows_hold_known_words_and_the_branch_fits_the_status(leaf: type[errors.HeadraceError]) -> None:
    row = errors.OUTCOMES[leaf]
    assert row.reason in errors.FAILURE_REASONS
    assert row.level in log.LEVELS
    assert 1 <= row.grpc_status <= 16
    if issubclass(leaf, errors.CapacityError):
        assert row.http_status in (429, 503, 504)
    elif issubclass(leaf, errors.RequestError):
        assert 400 <= row.http_status < 500 or row.http_status == 501
    elif issubclass(leaf, errors.PeerProtocolError):
        assert 400 <= row.http_status < 500
    else:
        assert row.http_status == 500


# The codes of InferError in server/_fast/infer_spec.pxd with the answers that the protocol gives them.
@pytest.mark.parametrize(
    ("code", "http_status", "grpc_status"),
    [(1, 400, 3), (2, 404, 5), (3, 503, 14), (4, 501, 12), (5, 500, 13), (6, 413, 8), (7, 504, 4), (8, 400, 6)],
)
def test_codes_from_below_the_line(code: int, http_status: int, grpc_status: int) -> None:
    error = errors.from_code(code, "expected a, got b")
    row = errors.outcome(error)
    assert (error.text, row.http_status, row.grpc_status) == ("expected a, got b", http_status, grpc_status)


def test_an_unknown_code_is_our_bug_and_keeps_its_text() -> None:
    error = errors.from_code(99, "lost")
    assert isinstance(error, errors.InternalError)
    assert "99" in error.text
    assert "lost" in error.text


def test_foreign_exceptions_are_unexpected_and_subclasses_inherit_their_row() -> None:
    class Closer(errors.UnknownModelError):
        pass

    assert errors.outcome(KeyError("x")) is errors.UNEXPECTED
    assert errors.outcome(errors.RequestError("a class without a row")) is errors.UNEXPECTED
    assert errors.outcome(Closer("x")) is errors.OUTCOMES[errors.UnknownModelError]
    assert errors.outcome(Closer) is errors.OUTCOMES[errors.UnknownModelError]


@pytest.mark.parametrize(
    ("file", "key", "text"),
    [
        ("models.toml", "models.a.max_batch", "models.toml: models.a.max_batch: expected 1..1024, got 0"),
        ("models.toml", "", "models.toml: expected 1..1024, got 0"),
        ("", "--workers", "--workers: expected 1..1024, got 0"),
        ("", "", "expected 1..1024, got 0"),
    ],
)
def test_configuration_errors_name_file_and_key(file: str, key: str, text: str) -> None:
    assert str(errors.ConfigurationError("expected 1..1024, got 0", file=file, key=key)) == text
