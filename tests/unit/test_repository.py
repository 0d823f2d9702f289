"""Every form of PATH, every way it can be wrong, and that one bad model leaves the others alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.demo import files
from server.models import onnx_file
from server.models.repository import ModelVersion, Reader, RepositoryError, scan
from tests.support import onnx_writer

MODEL = onnx_writer.add_sub()


def put(path: Path, content: bytes = MODEL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(found: list[ModelVersion]) -> list[tuple[str, int, bool]]:
    return [(item.name, item.version, item.error is None) for item in found]


def error_of(path: Path) -> str:
    (only,) = scan(path)
    assert only.error is not None
    return only.error


def test_one_file(tmp_path: Path) -> None:
    file = put(tmp_path / "resnet.v2.onnx")
    (only,) = scan(file)
    assert (only.name, only.version, only.path, only.error) == ("resnet.v2", 1, file, None)
    assert only.batching is not None and only.batching.batched
    assert only.model is not None and only.model.outputs[1].name == "OUTPUT1"


def test_flat_directory(tmp_path: Path) -> None:
    put(tmp_path / "iris" / "model.onnx")
    assert names(scan(tmp_path / "iris")) == [("iris", 1, True)]


def test_flat_directory_named_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "iris" / "model.onnx")
    monkeypatch.chdir(tmp_path / "iris")
    assert names(scan(".")) == [("iris", 1, True)]


def test_demo_model_is_a_model_directory() -> None:
    assert names(scan(files.MODEL)) == [("digits", 1, True)]


def test_tree_takes_the_highest_version_of_each(tmp_path: Path) -> None:
    for version in ("1", "00000123", "20"):
        put(tmp_path / "b" / version / "model.onnx")
    put(tmp_path / "a" / "7" / "model.onnx")
    put(tmp_path / "a" / "config.pbtxt", b"")
    put(tmp_path / "a" / "notes" / "model.onnx")
    put(tmp_path / ".git" / "1" / "model.onnx")
    put(tmp_path / "README.md", b"")
    assert names(scan(tmp_path)) == [("a", 7, True), ("b", 123, True)]
    assert names(scan(tmp_path, all_versions=True)) == [
        ("a", 7, True),
        ("b", 1, True),
        ("b", 20, True),
        ("b", 123, True),
    ]


def test_one_bad_model_leaves_the_others(tmp_path: Path) -> None:
    put(tmp_path / "good" / "1" / "model.onnx")
    put(tmp_path / "broken" / "1" / "model.onnx", b"not a model")
    put(tmp_path / "bad name" / "1" / "model.onnx")
    put(tmp_path / "deep" / "1" / "model.onnx", onnx_writer.identity("FP32", [1] * 9))
    (tmp_path / "empty" / "1").mkdir(parents=True)
    (tmp_path / "unfinished").mkdir()
    put(tmp_path / "flat" / "model.onnx")
    put(tmp_path / "twice" / "1" / "model.onnx")
    put(tmp_path / "twice" / "001" / "model.onnx")
    errors = {item.name: item.error for item in scan(tmp_path)}
    assert errors.pop("good") is None
    for name, said in {
        "broken": "is not a readable ONNX file",
        "bad name": "found: the model name 'bad name'; expected: a letter or digit",
        "deep": "input 'x' has 9 dimensions; at most 8 are served",
        "empty": "No such file",
        "unfinished": "expected: unfinished/VERSION/model.onnx; fix: put it at",
        "flat": "fix: mkdir",
        "twice": "found: 001 and 1, all of them version 1; fix: keep one",
    }.items():
        error = errors.pop(name)
        assert error is not None and said in error
    assert not errors


def test_one_version_of_a_model(tmp_path: Path) -> None:
    put(tmp_path / "prices" / "007" / "model.onnx")
    put(tmp_path / "prices" / "config.pbtxt", b"max_batch_size: 4")
    (found,) = scan(tmp_path / "prices" / "007")
    assert (found.name, found.version, found.error, found.config.max_batch_size) == ("prices", 7, None, 4)
    put(tmp_path / "my models" / "3" / "model.onnx")
    assert names(scan(tmp_path / "my models" / "3")) == [("3", 1, True)]


def test_a_flat_directory_with_a_space_in_its_path(tmp_path: Path) -> None:
    put(tmp_path / "my models" / "good" / "1" / "model.onnx")
    put(tmp_path / "my models" / "flat" / "model.onnx")
    put(tmp_path / "my models" / "bad name" / "model.onnx")
    bad, flat, _ = scan(tmp_path / "my models")
    assert bad.error is not None and bad.error.endswith("fix: rename it")
    folder = tmp_path / "my models" / "flat"
    assert flat.error is not None
    assert flat.error.endswith(f"fix: mkdir '{folder}/1' && mv '{folder}/model.onnx' '{folder}/1'")


def test_the_file_of_a_version_has_another_name(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "my prices.onnx")
    (found,) = scan(tmp_path)
    folder = tmp_path / "m" / "1"
    assert found.error is not None
    assert found.error.endswith(f"expected: model.onnx; fix: mv '{folder}/my prices.onnx' {folder}/model.onnx")
    put(folder / "other.onnx")
    assert [item.error for item in scan(tmp_path)] == [f"{folder}/model.onnx: No such file or directory"]


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").symlink_to("/nonexistent.onnx")
    (found,) = scan(tmp_path)
    assert found.error is not None and "a link to /nonexistent.onnx, which is not there" in found.error


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (
            "m/prices.onnx",
            "expected: m/VERSION/model.onnx; fix: mkdir {0}/m/1 && mv {0}/m/prices.onnx {0}/m/1/model.onnx",
        ),
        ("m/v2/model.onnx", "expected: VERSION is a number; fix: mv {0}/m/v2 {0}/m/2"),
    ],
)
def test_a_repository_that_is_nearly_right(tmp_path: Path, file: str, said: str) -> None:
    put(tmp_path / file)
    with pytest.raises(RepositoryError) as raised:
        scan(tmp_path)
    assert said.format(tmp_path) in str(raised.value)


def test_a_bad_highest_version_is_not_replaced(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.onnx")
    put(tmp_path / "m" / "2" / "model.onnx", b"")
    assert names(scan(tmp_path)) == [("m", 2, False)]


@pytest.mark.parametrize("name", ["a", "0", "A.b_c-d", "x" * 128])
def test_names_that_are_allowed(tmp_path: Path, name: str) -> None:
    put(tmp_path / name / "1" / "model.onnx")
    assert names(scan(tmp_path)) == [(name, 1, True)]


@pytest.mark.parametrize("name", ["-a", "_a", "a b", "ä", "x" * 129, "a\n", "a%2f"])
def test_names_that_are_not(tmp_path: Path, name: str) -> None:
    put(tmp_path / name / "1" / "model.onnx")
    assert "the model name" in error_of(tmp_path)


def test_an_external_weight_file_outside_is_refused(tmp_path: Path) -> None:
    graph = onnx_writer.Graph("g")
    graph.input("x", "FP32", [-1, 1])
    graph.output("y", "FP32", [-1, 1])
    entry = b"\x0a\x08location\x12\x0b/etc/passwd"
    tensor = b"\x42\x01w\x6a" + bytes([len(entry)]) + entry + b"\x70\x01"
    graph.initializers += b"\x2a" + bytes([len(tensor)]) + tensor
    assert "keeps tensor 'w' in '/etc/passwd'" in error_of(put(tmp_path / "m.onnx", graph.model()))


def refusal(path: Path) -> RepositoryError:
    with pytest.raises(RepositoryError) as caught:
        scan(path)
    text = str(caught.value)
    assert "found: " in text and "expected: " in text
    return caught.value


def test_nothing_there(tmp_path: Path) -> None:
    caught = refusal(tmp_path / "models" / "digits")
    assert caught.exit_code == 66
    assert f"found: {tmp_path} but no 'digits' in it" in str(caught)


def test_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("")
    caught = refusal(tmp_path)
    assert caught.exit_code == 66
    assert "it holds readme.txt" in str(caught)


def test_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert refusal(tmp_path / "link").exit_code == 66


def test_loose_files_name_the_command(tmp_path: Path) -> None:
    put(tmp_path / "resnet.onnx")
    assert f"fix: headrace serve {tmp_path / 'resnet.onnx'}" in str(refusal(tmp_path))
    put(tmp_path / "bert.onnx")
    assert f"mv {tmp_path / 'bert.onnx'} {tmp_path / 'bert' / '1' / 'model.onnx'}" in str(refusal(tmp_path))


def test_another_kind_of_file(tmp_path: Path) -> None:
    assert "an .onnx file or a directory" in str(refusal(put(tmp_path / "model.pt")))
    os.mkfifo(tmp_path / "fifo")
    assert "neither a file nor a directory" in str(refusal(tmp_path / "fifo"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    caught = refusal(folder)
    assert caught.exit_code == 77
    assert "chmod" in str(caught)


def test_a_file_that_is_no_model_is_read_again_only_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding out that it is none may take seconds, and whoever polls asks again and again."""
    file = tmp_path / "m" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(onnx_writer.identity()[:40])
    reader = Reader()
    read = onnx_file.read_model
    asked: list[Path] = []

    def counting(path: Path) -> object:
        asked.append(path)
        return read(path)

    monkeypatch.setattr(onnx_file, "read_model", counting)
    for _ in range(3):
        (found,) = scan(tmp_path, reader=reader)
        assert found.error is not None
    assert len(asked) == 1
    file.write_bytes(onnx_writer.identity())
    (found,) = scan(tmp_path, reader=reader)
    assert (found.error, len(asked)) == (None, 2)


@pytest.mark.parametrize(
    "file", ["m/1/model.onnx", "m/config.pbtxt", "m/names.txt", "m/golden/a.request.json", "m/golden/golden.toml"]
)
def test_a_version_is_as_new_as_the_file_of_it_that_was_written_last(tmp_path: Path, file: str) -> None:
    folder = tmp_path / "m"
    (folder / "1").mkdir(parents=True)
    (folder / "golden").mkdir()
    (folder / "1" / "model.onnx").write_bytes(onnx_writer.identity("FP32", (-1, 2)))
    (folder / "config.pbtxt").write_text('output { name: "y" label_filename: "names.txt" }')
    for name in ("names.txt", "golden/a.request.json", "golden/a.response.json", "golden/golden.toml"):
        (folder / name).write_text("")
    before = scan(tmp_path)[0]
    while (tmp_path / file).stat().st_ctime_ns <= before.written_ns:
        (tmp_path / file).chmod(0o644)
    assert scan(tmp_path)[0].written_ns == (tmp_path / file).stat().st_ctime_ns


def test_a_version_that_is_missing_has_its_own_place(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "config.pbtxt").write_text("version_policy { specific { versions: [ 9 ] } }")
    (only,) = scan(tmp_path)
    # What clients are told leaves out where the model's directory lies.
    assert (only.error or "").replace(f"{only.path.parent}/", "").endswith("put it at 9/model.onnx")
