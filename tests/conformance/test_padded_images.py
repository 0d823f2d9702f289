"""PP-OCR with images of any size: the detector, which takes multiples of 32 only, finds text in all of them, and the
recogniser reads images of nearly the same width together. Every answer is that of ONNX Runtime for the padded image.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.conformance.onnx_reference import Reference
from tests.conformance.test_padding import parameter
from tests.conformance.v2_client import Array, Client, Tensor
from tests.support import clients, triton_repository
from tests.support.server import Server, running

pytestmark = pytest.mark.slow

FOLDER = "rapidocr/models"
MODELS = {
    "detector": (
        f"{FOLDER}/PP-OCRv6_det_small.onnx",
        parameter("pad_x", "axis=2 multiple=32 max=960 alone=padded; axis=3 multiple=32 max=960 alone=padded")
        + parameter("cut_fetch_name_0", "axis=2 like=x:2; axis=3 like=x:3"),
    ),
    "recogniser": (
        f"{FOLDER}/PP-OCRv6_rec_small.onnx",
        parameter("pad_x", "axis=3 multiple=32 max=960 alone=padded")
        + parameter("cut_fetch_name_0", "axis=1 like=x:3 ratio=1/8 round=down"),
    ),
}
SIZES = {
    "detector": [(60, 90), (64, 70), (33, 96), (50, 65)],
    "recogniser": [(48, 40), (48, 64), (48, 50), (48, 33)],
}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: clients.package_file("models", path).read_bytes() for name, (path, _) in MODELS.items()}


@pytest.fixture(scope="module")
def served(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("images")
    for name, content in files.items():
        triton_repository.put(root, name, content, MODELS[name][1])
    with running(root, "--workers", "1", "--max-batch-size", "8") as server:
        yield server


def expected(reference: Reference, name: str, image: Array) -> Array:
    """The model's answer for the image in the next larger multiple of 32, cut back."""
    _, _, height, width = image.shape
    padded = np.zeros((1, 3, -(-height // 32) * 32 if name == "detector" else height, -(-width // 32) * 32), np.float32)
    padded[:, :, :height, :width] = image
    (answer,) = reference.run({"x": padded}).values()
    return answer[:, :, :height, :width] if name == "detector" else answer[:, : width // 8]


@pytest.mark.parametrize("name", MODELS)
def test_images_are_padded_and_answers_cut_back(served: Server, files: dict[str, bytes], name: str) -> None:
    reference = Reference(files[name])
    rng = np.random.default_rng(1)
    images = [rng.standard_normal((1, 3, *size), np.float32) for size in SIZES[name]]

    def one(image: Array) -> None:
        with Client(served.host, served.port, timeout_s=60) as client:
            reply = client.infer(name, [Tensor("x", "FP32", image)], parameters={"binary_data_output": True})
        (found,) = reply.outputs.values()
        wanted = expected(reference, name, image)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, [*images, *images]))
