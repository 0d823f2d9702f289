"""Models of several places: names that were given, versions that were asked for, and what cannot be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from server.config import ModelSource, VersionPolicy
from server.demo import files
from server.models.repository import RepositoryError
from server.models.sources import Repository, scan_source, scan_sources


def put(folder: Path, *versions: str) -> Path:
    """A base path with these versions of the demo model; without versions the model lies in the folder itself."""
    for version in versions or (".",):
        (folder / version).mkdir(parents=True, exist_ok=True)
        shutil.copy(DEMO, folder / version / "model.onnx")
    return folder


DEMO = next(Path(files.MODEL).rglob("model.onnx")) if Path(files.MODEL).is_dir() else Path(files.MODEL)


def served(*sources: ModelSource) -> list[tuple[str, int, bool]]:
    return [(item.name, item.version, item.error is None) for item in scan_sources(sources)]


def test_a_name_is_the_models_whatever_its_directory_is_called(tmp_path: Path) -> None:
    base = put(tmp_path / "7", "1", "00000123")
    assert served(ModelSource(base, "mnist")) == [("mnist", 123, True)]
    assert served(ModelSource(put(tmp_path / "flat"), "mnist")) == [("mnist", 1, True)]
    assert served(ModelSource(DEMO, "mnist")) == [("mnist", 1, True)]


def test_without_a_name_a_source_is_what_serve_takes(tmp_path: Path) -> None:
    put(tmp_path / "a", "1", "2")
    put(tmp_path / "b", "5")
    assert served(ModelSource(tmp_path)) == [("a", 2, True), ("b", 5, True)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (VersionPolicy(), [3]),
        (VersionPolicy("latest", count=2), [2, 3]),
        (VersionPolicy("latest", count=9), [1, 2, 3]),
        (VersionPolicy("all"), [1, 2, 3]),
        (VersionPolicy("specific", versions=(1,)), [1]),
        (VersionPolicy("specific", versions=(3, 1, 3)), [1, 3]),
    ],
)
def test_versions_are_those_of_the_policy(tmp_path: Path, policy: VersionPolicy, expected: list[int]) -> None:
    base = put(tmp_path / "m", "1", "2", "3")
    assert served(ModelSource(base, "x", policy)) == [("x", version, True) for version in expected]
    assert served(ModelSource(tmp_path, versions=policy)) == [("m", version, True) for version in expected]


def test_a_version_that_is_missing_is_reported_as_that_version(tmp_path: Path) -> None:
    base = put(tmp_path / "m", "1", "2")
    found = scan_source(ModelSource(base, "x", VersionPolicy("specific", versions=(2, 9))))
    assert [(item.version, item.error is None) for item in found] == [(2, True), (9, False)]
    assert found[1].error == f"found: version 1, 2; expected: version 9; fix: put it at {base}/9/model.onnx"


def test_a_name_on_a_directory_of_models_says_what_to_give(tmp_path: Path) -> None:
    put(tmp_path / "a", "1")
    with pytest.raises(RepositoryError, match=rf"directories of models \(a\).*fix: give {tmp_path}/a") as caught:
        scan_source(ModelSource(tmp_path, "x"))
    assert caught.value.exit_code == os.EX_CONFIG
    put(tmp_path / "b", "1")
    with pytest.raises(RepositoryError, match=r"directories of models \(a, b\)"):
        scan_source(ModelSource(tmp_path, "x"))


def test_two_sources_cannot_share_a_name(tmp_path: Path) -> None:
    first, second = ModelSource(put(tmp_path / "1" / "m", "1"), "x"), ModelSource(put(tmp_path / "2" / "x", "1"))
    with pytest.raises(RepositoryError, match=r"found: a model 'x' in .*/1/m and one in .*/2/x"):
        scan_sources([first, second])


@pytest.mark.parametrize("name", ["a b", "", "-x", "x" * 129])
def test_names_are_those_that_clients_can_send(tmp_path: Path, name: str) -> None:
    with pytest.raises(RepositoryError, match="found: the model name"):
        scan_source(ModelSource(put(tmp_path / "m", "1"), name))


def test_a_path_that_is_not_there() -> None:
    with pytest.raises(RepositoryError, match="no 'nothing' in it"):
        scan_sources([ModelSource(Path("/nothing"), "x")])


def test_an_empty_directory_may_be_waited_for(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / ".lost+found").mkdir()
    with pytest.raises(RepositoryError, match="no model in"):
        Repository([ModelSource(models)]).scan()
    repository = Repository([ModelSource(models)], may_be_empty=True)
    assert repository.scan() == []
    put(models / "late", "1")
    assert [(one.name, one.error) for one in repository.scan()] == [("late", None)]
    # Nothing where models were: the directory may have been unmounted.
    shutil.rmtree(models / "late")
    with pytest.raises(RepositoryError, match="no model in"):
        repository.scan()
    # What is not a place for models is said at once.
    with pytest.raises(RepositoryError, match="nowhere"):
        Repository([ModelSource(tmp_path / "nowhere")], may_be_empty=True).scan()
