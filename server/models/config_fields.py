"""Triton's ModelConfig, field by field: what this server does with each. The table of docs/model-config.md.

A field that is not `taken` is refused wherever it is set. Partly taken ones are checked where they are read.
"""

from __future__ import annotations

from typing import NamedTuple


class ConfigField(NamedTuple):
    """`path` has no indexes; a refused message stands for all that is in it."""

    path: str
    taken: bool
    text: str


def _yes(path: str, text: str) -> ConfigField:
    return ConfigField(path, True, text)


def _no(path: str, text: str) -> ConfigField:
    return ConfigField(path, False, text)


FIELDS = (
    _yes("name", "the name of the model's directory, or left out"),
    _yes("platform", "onnxruntime_onnx"),
    _yes("backend", "onnxruntime"),
    _no("runtime", "a library of one's own for a backend is not loaded"),
    _yes("default_model_filename", "model.onnx"),
    _yes("max_batch_size", "0: not batched; N: at most so many rows in a batch; left out: inferred from the file"),
    _yes("input", "inputs that are left out are inferred from the file"),
    _yes("input.name", "an input of the model"),
    _yes("input.data_type", "the model's, or left out"),
    _yes("input.dims", "the model's without its batch axis where max_batch_size > 0; a size in place of a free one"),
    _yes("input.reshape", "the shape that the model gets in place of dims"),
    _yes("input.reshape.shape", "fixed sizes, as many elements as dims have"),
    _yes("input.format", "FORMAT_NCHW and FORMAT_NHWC need three dimensions; nothing is transposed"),
    _no("input.is_shape_tensor", "only TensorRT has shape tensors"),
    _no("input.allow_ragged_batch", "rows of different shapes do not share a batch"),
    _no("input.optional", "every input of an ONNX model is needed; one with a default in the file is not offered"),
    _no("input.is_non_linear_format_io", "only TensorRT has such formats"),
    _yes("output", "outputs that are left out are inferred from the file"),
    _yes("output.name", "an output of the model"),
    _yes("output.data_type", "the model's, or left out"),
    _yes("output.dims", "as those of inputs; also gives a shape to an output that has none in the file"),
    _yes("output.reshape", "the model's shape, which clients get as dims"),
    _yes("output.reshape.shape", "fixed sizes, as many elements as dims have"),
    _yes("output.label_filename", "a file in the model's directory, one label a line: classification prints them"),
    _no("output.is_shape_tensor", "only TensorRT has shape tensors"),
    _no("output.is_non_linear_format_io", "only TensorRT has such formats"),
    _no("batch_input", "inputs are not made from batches"),
    _no("batch_output", "outputs are not scattered"),
    _yes("version_policy", "default: the highest version"),
    _yes("version_policy.latest", "the highest versions"),
    _yes("version_policy.latest.num_versions", "how many of them; 1 by default"),
    _yes("version_policy.all", "every version"),
    _yes("version_policy.specific", "those listed"),
    _yes("version_policy.specific.versions", "at least one"),
    _yes(
        "instance_group",
        "batches that run at the same time: the counts of all groups add up; of several devices each batch "
        "goes to the one that answers it first",
    ),
    _yes("instance_group.name", "any; without effect"),
    _yes(
        "instance_group.kind",
        "KIND_CPU and KIND_GPU, also side by side, or KIND_AUTO, which leaves the device to --device",
    ),
    _yes("instance_group.count", "on each GPU of the group; 1 to 32 together"),
    _yes("instance_group.gpus", "those of the host, each once; the first where KIND_GPU stands alone"),
    _no("instance_group.profile", "only TensorRT has profiles"),
    _no("instance_group.rate_limiter", "there is no rate limiter"),
    _no("instance_group.passive", "every instance takes requests"),
    _no("instance_group.secondary_devices", "models run on the CPU"),
    _no("instance_group.host_policy", "there are no host policies"),
    _yes("dynamic_batching", "rows of different requests share a batch with it and without it"),
    _yes(
        "dynamic_batching.preferred_batch_size",
        "with a queue delay: a batch is due as soon as it has the smallest of them, and runs with all rows that are "
        "there, up to max_batch_size",
    ),
    _yes("dynamic_batching.max_queue_delay_microseconds", "longest wait for a fuller batch, up to 10 seconds"),
    _yes(
        "dynamic_batching.preserve_ordering",
        "an answer waits for those to earlier requests; of requests on connections to one worker, so on one connection",
    ),
    _yes("dynamic_batching.default_queue_policy", "how long the queue is and how long requests stay in it"),
    _yes(
        "dynamic_batching.default_queue_policy.timeout_action",
        "REJECT: late requests are refused; DELAY: a batch in which every request is late runs after the others of its "
        "level",
    ),
    _yes(
        "dynamic_batching.default_queue_policy.default_timeout_microseconds",
        "requests that have not begun to run by then are late",
    ),
    _yes(
        "dynamic_batching.default_queue_policy.allow_timeout_override",
        "with it a request may ask for a shorter timeout, without it the default one is every request's",
    ),
    _yes("dynamic_batching.default_queue_policy.max_queue_size", "requests are refused while so many rows wait"),
    _yes("dynamic_batching.priority_levels", "up to 32; a batch has requests of one level, those of level 1 run first"),
    _yes(
        "dynamic_batching.default_priority_level",
        "of requests without the parameter priority, with 0, and with one that is no level",
    ),
    _yes(
        "dynamic_batching.priority_queue_policy",
        "of single levels, with the fields of default_queue_policy, which it replaces",
    ),
    *(
        _yes(f"dynamic_batching.priority_queue_policy.{key}", "as in default_queue_policy")
        for key in ("timeout_action", "default_timeout_microseconds", "allow_timeout_override", "max_queue_size")
    ),
    _no("sequence_batching", "requests with state are not served"),
    _no("ensemble_scheduling", "ensembles are not served"),
    _yes("optimization", ""),
    _yes("optimization.graph", ""),
    _yes("optimization.graph.level", "0 all, 1 extended, -1 basic, 2 none"),
    _no("optimization.priority", "models have no priorities"),
    _no("optimization.cuda", "models run on the CPU"),
    _yes("optimization.execution_accelerators", "execution providers, in their order before the CPU"),
    _yes("optimization.execution_accelerators.gpu_execution_accelerator", ""),
    _yes(
        "optimization.execution_accelerators.gpu_execution_accelerator.name",
        "tensorrt or cuda; refused where ONNX Runtime has not got it",
    ),
    _yes(
        "optimization.execution_accelerators.gpu_execution_accelerator.parameters",
        "options of the provider, in ONNX Runtime's names or Triton's",
    ),
    _yes("optimization.execution_accelerators.cpu_execution_accelerator", ""),
    _yes(
        "optimization.execution_accelerators.cpu_execution_accelerator.name",
        "openvino; refused where ONNX Runtime has not got it",
    ),
    _yes(
        "optimization.execution_accelerators.cpu_execution_accelerator.parameters",
        "options of the provider, in ONNX Runtime's names",
    ),
    _yes("optimization.input_pinned_memory", ""),
    _no("optimization.input_pinned_memory.enable", "the CPU reads inputs where they lie"),
    _yes("optimization.output_pinned_memory", ""),
    _no("optimization.output_pinned_memory.enable", "the CPU writes outputs where they lie"),
    _no("optimization.gather_kernel_buffer_threshold", "nothing is gathered"),
    _no("optimization.eager_batching", "nothing is gathered"),
    _yes("parameters", "those of the table below"),
    _yes("parameters.string_value", ""),
    _yes("model_warmup", "runs before the model is ready; one that fails keeps the model from loading"),
    _yes("model_warmup.name", "any"),
    _yes("model_warmup.batch_size", "rows; 0 and 1 are one row"),
    _yes("model_warmup.count", "runs; 1 by default, at most 1000"),
    _yes("model_warmup.inputs", "every input of the model"),
    _yes("model_warmup.inputs.data_type", "the input's"),
    _yes("model_warmup.inputs.dims", "without the batch axis where max_batch_size > 0"),
    _yes("model_warmup.inputs.zero_data", "zeros, or empty strings"),
    _yes("model_warmup.inputs.random_data", "random bytes of numbers; not for strings"),
    _no("model_warmup.inputs.input_data_file", "warm-up takes no files"),
    _no("model_operations", "libraries of operators are not loaded"),
    _yes("model_transaction_policy", ""),
    _no("model_transaction_policy.decoupled", "an ONNX model gives one answer to a request"),
    _no("model_repository_agents", "there are no agents"),
    _yes("response_cache", ""),
    _no("response_cache.enable", "answers are not cached"),
    _no("cc_model_filenames", "there is one model file for every device"),
    _no("metric_tags", "metrics have the model's name and version only"),
    _no("model_metrics", "the buckets of metrics are fixed"),
)
BY_PATH = {field.path: field for field in FIELDS}

#: Keys of `parameters`: those of Triton's backend for ONNX Runtime that mean something on the CPU, then those of
#: server.models.shape_rules, which have a tensor's name in them.
PARAMETERS = {
    "intra_op_thread_count": "threads for one batch; 0: usable cores / instances",
    "inter_op_thread_count": "threads across operators where execution_mode is 1; 0: as many as there are cores",
    "execution_mode": "0: one operator after the other; 1: in parallel",
    "cudnn_conv_algo_search": "option of the CUDA provider",
    "gpu_mem_limit": "option of the CUDA provider, in bytes",
    "arena_extend_strategy": "option of the CUDA provider; kSameAsRequested unless given",
    "enable_mem_arena": "0 or 1: ONNX Runtime keeps memory between runs",
    "enable_mem_pattern": "0 or 1: memory is planned from shapes that were seen before",
    "session.use_device_allocator_for_initializers": "0 or 1",
    "slo_p99_ms": "latency in milliseconds, such as 20 or 7.5, that 99 of 100 requests shall keep: a batch that would "
    "answer its oldest row later is cut where that answers more rows in time, and a queue delay ends in time for it",
    "batching_reason": "written into answers by this server; without effect",
    "pad_INPUT": "`axis=A value=V multiple=M max=L`: rows of this input are padded, so that near lengths run together",
    "cut_OUTPUT": "`axis=A like=INPUT ratio=P/Q`: what padding adds to this output is cut off; `none`: nothing is",
    "batch_axis_TENSOR": "the axis of this input or output that counts rows, where it is not the first: a number",
    "same_INPUT": "true: this input has no batch axis, and only requests with equal values of it run together",
}
