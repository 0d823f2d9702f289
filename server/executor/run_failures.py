"""What an exception of a model runtime means for those who asked: the inputs, the memory or the device.

ONNX Runtime has one class for all of them, so it is the text that tells. The texts are those of ONNX Runtime's CPU and
CUDA providers, of CUDA's libraries, TensorRT, OpenVINO, OpenCL and C++. `failure_of` is pure.
"""

from __future__ import annotations

import re
from enum import Enum


class Failure(Enum):
    """REFUSED: these inputs, whatever else there is. OUT_OF_MEMORY: fewer at once may do. DEVICE_LOST: nothing runs on
    the device any more in this process.
    """

    REFUSED = 1
    OUT_OF_MEMORY = 2
    DEVICE_LOST = 3


#: Errors after which, as CUDA documents it, each further call gives the same error until the process ends.
_DEVICE_LOST = re.compile(
    "|".join(
        (
            r"an illegal memory access was encountered",
            r"device-side assert triggered",
            r"an illegal instruction was encountered",
            r"misaligned address",
            r"operation not supported on global/shared address space",
            r"invalid program counter",
            r"hardware stack error",
            r"unspecified launch failure",
            r"the launch timed out and was terminated",
            r"uncorrectable (?:ECC|NVLink) error",
            r"context is destroyed",
            r"no CUDA-capable device is detected",
            r"(?:CUDA-capable device\(s\) is/are|all CUDA-capable devices are) busy or unavailable",
            # The same by number or name, where the text is missing: cuda_runtime_api.h, enum cudaError.
            r"\bCUDA (?:failure|error) (?:46|100|214|220|70[029]|71[04-9])\b",
            r"\bcudaError(?:Illegal(?:Address|Instruction)|Assert|MisalignedAddress|Invalid(?:AddressSpace|Pc))\b",
            r"\bcudaError(?:HardwareStackError|Launch(?:Failure|Timeout)|(?:ECC|Nvlink)Uncorrectable)\b",
            r"\bcudaError(?:ContextIsDestroyed|NoDevice|DevicesUnavailable)\b",
        )
    ),
    re.IGNORECASE,
)
_OUT_OF_MEMORY = re.compile(
    "|".join(
        (
            # ONNX Runtime's arenas, also with a limit (gpu_mem_limit).
            r"failed to allocate memory",
            r"available memory of \d+ is smaller than requested bytes of \d+",
            r"\bbad_alloc\b",
            r"\bbad allocation\b",
            # CUDA, cuBLAS, cuDNN, TensorRT, OpenCL; and errno.
            r"out[ _]of[ _](?:host_|device_)?memory",
            r"\bOutOfMemory\b",
            r"\bcudaErrorMemoryAllocation\b",
            r"\bCU\w+_STATUS_(?:\w+_)?ALLOC(?:ATION)?_FAILED\b",
            r"\bALLOCATION_FAIL(?:ED|URE)\b",
            r"\bCL_(?:MEM_OBJECT_ALLOCATION_FAILURE|OUT_OF_RESOURCES)\b",
            r"exceeded max size of memory (?:object )?allocation",
            r"cannot allocate memory",
        )
    ),
    re.IGNORECASE,
)
_STATUS = re.compile(r".*Status Message: ", re.DOTALL)
#: What an arena of rows keeps of a text (FAILURE_TEXT_BYTES of layout.h).
MAX_TEXT_BYTES = 250


def failure_of(error: BaseException) -> Failure:
    """What the exception of a run says, by its type and text."""
    if isinstance(error, MemoryError):
        return Failure.OUT_OF_MEMORY
    text = str(error)
    if _DEVICE_LOST.search(text):
        return Failure.DEVICE_LOST
    return Failure.OUT_OF_MEMORY if _OUT_OF_MEMORY.search(text) else Failure.REFUSED


def unfit_text(error: BaseException, what: str) -> str:
    """What the client of a request is told that does not fit: `what` was run by itself, "one row" say."""
    head = f"out of memory: {what} of this request does not fit, even by itself and with all unused memory given back"
    tail = ": send less, try later, or give the server more memory"
    reason = _STATUS.sub("", str(error)).strip()
    room = MAX_TEXT_BYTES - len(f"{head} (){tail}".encode())
    reason = reason.encode()[: max(room, 0)].decode("utf-8", "ignore")
    return f"{head} ({reason}){tail}" if reason else head + tail
