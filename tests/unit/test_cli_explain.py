"""What `headrace explain` prints is a configuration that a server takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from server import cli_explain
from server.models import repository
from tests.support import onnx_writer


@pytest.mark.parametrize("is_file", [True, False])
def test_the_text_serves_the_model_that_it_was_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, is_file: bool
) -> None:
    folder = tmp_path / "scores"
    (folder / "1").mkdir(parents=True)
    loose = tmp_path / "model.onnx"
    for file in (folder / "1" / "model.onnx", loose):
        file.write_bytes(onnx_writer.mlp())
    assert cli_explain.run(["--no-load", str(loose if is_file else folder)]) == 0
    text = capsys.readouterr().out
    assert ("name: " not in text.split("input {")[0]) == is_file
    (folder / "config.pbtxt").write_text(text)
    (found,) = repository.scan(folder)
    assert (found.name, found.error) == ("scores", None)
    assert found.config.max_batch_size == 64


def test_a_preferred_size_that_no_batch_reaches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scores" / "1").mkdir(parents=True)
    (tmp_path / "scores" / "1" / "model.onnx").write_bytes(onnx_writer.mlp())
    (tmp_path / "scores" / "config.pbtxt").write_text("dynamic_batching { preferred_batch_size: 500 }")
    assert cli_explain.run(["--no-load", str(tmp_path / "scores")]) == 0
    assert "# preferred_batch_size: 500 is never reached: batches end at 64\n" in capsys.readouterr().out
