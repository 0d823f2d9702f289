"""What the exception of a run means: the texts are what the runtimes and drivers say."""

from __future__ import annotations

import pytest

from server.executor.run_failures import MAX_TEXT_BYTES, Failure, failure_of, unfit_text

NODE = "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'MatMul_0' "
ARENA = NODE + (
    "Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for "
    "requested buffer of size 1073741824\n"
)
ILLEGAL_ACCESS = (
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=node-17 ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/gpu_data_transfer.cc ; line=63 ; "
    "expr=cudaMemcpyAsync(dst_data, src_data, bytes, cudaMemcpyHostToDevice, stream);"
)


@pytest.mark.parametrize(
    "error",
    [
        # ONNX Runtime 1.32 on the CPU, with its arena and without it.
        RuntimeError(ARENA),
        RuntimeError(NODE + "Status Message: std::bad_alloc"),
        # What numpy, ctypes and pybind11 raise.
        MemoryError(),
        MemoryError("std::bad_alloc"),
        # The CUDA provider: its arena, with and without gpu_mem_limit; CUDA and its libraries.
        RuntimeError(
            "Non-zero status code returned while running Cast node. Name:'graph_output_cast0' Status Message: "
            "onnxruntime::BFCArena::AllocateRawInternal Available memory of 34699008 is smaller than requested bytes "
            "of 945041920"
        ),
        RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=node ; expr=cudaMalloc((void**)&p, size);"),
        RuntimeError("CUDA error cudaErrorMemoryAllocation:out of memory"),
        RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&cublas_handle_);"),
        RuntimeError("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cudnnCreate(&handle);"),
        RuntimeError("CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0"),
        # TensorRT, OpenVINO on a GPU, MSVC, errno.
        RuntimeError("[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"),
        RuntimeError("[resizingAllocator.cpp::allocate::74] Error Code 1: OutOfMemory (no further information)"),
        RuntimeError("[GPU] Exceeded max size of memory object allocation: requested 8589934592 bytes"),
        RuntimeError("[GPU] clEnqueueNDRangeKernel, error code: -4 CL_MEM_OBJECT_ALLOCATION_FAILURE"),
        RuntimeError("Status Message: bad allocation"),
        OSError("[Errno 12] Cannot allocate memory"),
    ],
)
def test_out_of_memory(error: Exception) -> None:
    assert failure_of(error) is Failure.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "text",
    [
        ILLEGAL_ACCESS,
        "CUDA failure 710: device-side assert triggered ; GPU=1",
        "CUDA failure 719: unspecified launch failure ; GPU=0",
        "CUDA failure 702: the launch timed out and was terminated",
        "CUDA failure 715: an illegal instruction was encountered",
        "CUDA failure 716: misaligned address",
        "CUDA failure 214: uncorrectable ECC error encountered",
        "CUDA error cudaErrorIllegalAddress: in a kernel launched before",
        "CUDA failure 46: all CUDA-capable devices are busy or unavailable",
        "Error Code 1: Cuda Runtime (an illegal memory access was encountered)",
        # Memory and the device: the device goes first, as nothing can be tried again on it.
        "CUDA failure 700: an illegal memory access was encountered; Failed to allocate memory",
    ],
)
def test_a_device_that_is_lost_to_this_process(text: str) -> None:
    assert failure_of(RuntimeError(text)) is Failure.DEVICE_LOST


@pytest.mark.parametrize(
    "text",
    [
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: x for the following indices",
        NODE + "Status Message: indices element out of data bounds, idx=99 must be within the inclusive range [-16,15]",
        NODE + "Status Message: onnxruntime::OpKernelContext::OutputMLValue Calculation for Tensor storage overflowed",
        NODE + "Status Message: SafeIntExceptionHandler::SafeIntOnOverflow() Integer overflow",
        "CUDA failure 1: invalid argument ; GPU=0 ; expr=cudaMemcpyAsync(out, in, size, cudaMemcpyDeviceToDevice)",
        "CUDA failure 712: part or all of the requested memory range is already mapped",
        "CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED",
        "",
    ],
)
def test_what_other_inputs_need_not_have(text: str) -> None:
    assert failure_of(RuntimeError(text)) is Failure.REFUSED


def test_a_client_reads_what_did_not_fit_and_what_to_do() -> None:
    assert unfit_text(RuntimeError(ARENA), "one row").startswith(
        "out of memory: one row of this request does not fit, even by itself and with all unused memory given back ("
    )
    text = unfit_text(RuntimeError("Name:'n' Status Message: Failed to allocate memory"), "the input")
    assert "(Failed to allocate memory): send less, try later, or give the server more memory" in text
    assert "()" not in unfit_text(MemoryError(), "one row")


@pytest.mark.parametrize("reason", ["x" * 1000, "ü" * 500, "Status Message: " + "y" * 300])
def test_the_text_fits_into_the_arena(reason: str) -> None:
    text = unfit_text(RuntimeError(reason), "the input")
    assert len(text.encode()) <= MAX_TEXT_BYTES and text.endswith("more memory")
