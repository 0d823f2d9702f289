"""A model's config.pbtxt, or a ModelConfig in JSON, as plain values; what is not supported is refused.

Sources: Triton's model_config.proto and model_configuration.md; ONNX Runtime's options from the README of
onnxruntime_backend. Whether it agrees with the model's file is server.models.config_fit's question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from server.config import VersionPolicy
from server.errors import ConfigurationError
from server.models.batch_axes import is_batch_rule
from server.models.config_fields import BY_PATH, PARAMETERS
from server.models.config_mistakes import explained
from server.models.config_text import line_of, lines_of
from server.models.providers import CPU_ACCELERATORS, CUDA, GPU_ACCELERATORS, TENSORRT, Place, Provider, of_accelerator
from server.models.queue_policy import DEFAULT_QUEUES, Queues, queues_of
from server.models.shape_rules import is_shape_rule
from server.option_values import CPU, MAX_DEVICES
from server.protocol import messages
from server.protocol.datatypes import DATATYPES

CONFIG_FILE = "config.pbtxt"
#: A configuration of more is no configuration.
MAX_CONFIG_BYTES = 1 << 20
MAX_BATCH_ROWS = 4095
MAX_INSTANCES = 32
MAX_DELAY_US = 10_000_000
MAX_WARM_UP_COUNT = 1000
MAX_SLO_MS = 3_600_000
#: Besides the batch axis: the data path keeps shapes of eight dimensions.
MAX_DIMS = 7
MAX_SIZE = (1 << 31) - 1
MAX_WARM_UP_ELEMENTS = 1 << 28
_BY_CONFIG_NAME = {datatype.config: datatype.name for datatype in DATATYPES}
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_PARSER_SAID = re.compile(r"(\d+):(\d+) : (?:'.*?': )?(.*)", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r'.*no field named "(\w+)"', re.DOTALL)
_GRAPH_LEVELS = (-1, 0, 1, 2)
#: Options of the CUDA provider that Triton's ONNX Runtime backend takes as parameters of the model.
_CUDA_PARAMETERS = ("cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy")


class ModelConfigError(ConfigurationError):
    """A configuration that cannot be followed; the text names the field, its line, what was expected and found."""


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """What is said of an input or output; dims and reshape have no batch axis where the model is batched."""

    name: str
    datatype: str | None = None
    dims: tuple[int, ...] = ()
    reshape: tuple[int, ...] | None = None
    format: str = "FORMAT_NONE"
    label_file: str = ""


@dataclass(frozen=True, slots=True)
class WarmUpInput:
    """An input of a warm-up run; `is_random`: any bytes, else zeros."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    is_random: bool


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Runs to make before the model is ready."""

    name: str
    batch_rows: int
    count: int
    inputs: tuple[WarmUpInput, ...]


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What ONNX Runtime is told; None leaves a thing as it is by default."""

    is_parallel: bool = False
    inter_op_threads: int = 1
    mem_arena: bool | None = None
    mem_pattern: bool | None = None
    graph_level: int = 0
    #: Execution providers to have before the CPU; none: what the server's --device says.
    providers: tuple[Provider, ...] = ()
    #: Entries of ONNX Runtime's session configuration, in pairs.
    entries: tuple[tuple[str, str], ...] = ()


DEFAULT_SESSION = SessionSettings()


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a configuration says; None and empty values are what it leaves to the server."""

    max_batch_size: int | None = None
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    version_policy: VersionPolicy | None = None
    instances: int | None = None
    #: The device of each instance, where they are on several.
    places: tuple[Place, ...] = ()
    #: KIND_CPU: whatever --device says.
    on_cpu: bool = False
    max_queue_delay_us: int | None = None
    preferred_batch_sizes: tuple[int, ...] = ()
    preserve_ordering: bool = False
    queues: Queues = DEFAULT_QUEUES
    intra_op_threads: int | None = None
    #: None: the server's; 0 cannot be said.
    slo_p99_us: int | None = None
    session: SessionSettings = DEFAULT_SESSION
    warm_ups: tuple[WarmUp, ...] = ()
    #: Output -> names of its classes, in pairs: read by whoever reads the file.
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()


#: Of a model about which nothing is said.
NO_CONFIG = ModelConfig()


@dataclass(frozen=True, slots=True)
class Parsed:
    """A configuration and where its fields stand, for those who find that it contradicts something."""

    config: ModelConfig
    origin: str = CONFIG_FILE
    lines: dict[str, int] = field(default_factory=dict)

    def refuse(self, path: str, text: str) -> NoReturn:
        """Raises ModelConfigError about the field at `path` (`input[0].dims`)."""
        line = line_of(self.lines, path)
        where = f"{self.origin} line {line}" if line else self.origin
        raise ModelConfigError(f"{where}: {path}: {text}")


def parse_text(text: str, name: str) -> Parsed:
    """A config.pbtxt of the model `name`. Raises ModelConfigError."""
    try:
        message = messages.from_text(text, "inference.ModelConfig")
    except ValueError as error:
        said = _PARSER_SAID.match(str(error))
        line, column, reason = said.groups() if said else ("?", "?", str(error))
        unknown = _UNKNOWN_FIELD.match(reason)
        if said and not unknown:
            reason = explained(text, int(line), int(column), reason)
        elif unknown and said:
            lines = lines_of(text)
            around = _refused_around(unknown[1], int(line), lines)
            if around:
                Parsed(NO_CONFIG, CONFIG_FILE, lines).refuse(around, f"not supported: {BY_PATH[around].text}")
            reason = f"{unknown[1]}: not supported: this server knows no such field here"
        raise ModelConfigError(f"{CONFIG_FILE} line {line}: {reason}") from None
    return _Parser(message, CONFIG_FILE, lines_of(text)).parse(name)


def _refused_around(name: str, line: int, lines: dict[str, int]) -> str:
    """The field that is refused as a whole and holds the first field `name` from this line on, or ""."""
    for path, own_line in sorted(lines.items(), key=lambda item: item[1]):
        if own_line >= line and path.rpartition(".")[2] == name:
            around = re.sub(r"\[\d+\]", "", path)
            while around := around.rpartition(".")[0]:
                if around in BY_PATH and not BY_PATH[around].taken:
                    return around
            break
    return ""


def parse_document(document: dict[str, Any], name: str) -> Parsed:
    """The same of a ModelConfig in JSON. Raises ModelConfigError."""
    try:
        message = messages.from_document_strictly(document, "inference.ModelConfig")
    except ValueError as error:
        raise ModelConfigError(f"config: {error}") from None
    return _Parser(message, "config", {}).parse(name)


def _set_fields(message: Any, path: str, place: str) -> Iterator[tuple[str, str]]:
    """Table path and place of everything that is set in a message, outer before inner."""
    for descriptor, value in message.ListFields():
        own, here = path + descriptor.name, place + descriptor.name
        yield own, here
        inner = descriptor.message_type
        if inner is None:
            continue
        if inner.GetOptions().map_entry:
            if inner.fields_by_name["value"].message_type is not None:
                for key in value:
                    yield from _set_fields(value[key], own + ".", f"{here}{{{key}}}.")
        elif descriptor.is_repeated:
            for index, item in enumerate(value):
                yield from _set_fields(item, own + ".", f"{here}[{index}].")
        else:
            yield from _set_fields(value, own + ".", here + ".")


class _Parser:
    def __init__(self, message: Any, origin: str, lines: dict[str, int]) -> None:
        self._message = message
        self._refuse = Parsed(NO_CONFIG, origin, lines).refuse
        self._origin = origin
        self._lines = lines

    def parse(self, name: str) -> Parsed:
        message = self._message
        for path, place in _set_fields(message, "", ""):
            known = BY_PATH.get(path)
            if known is None or not known.taken:
                self._refuse(place, f"not supported: {known.text if known else 'this server does not read it'}")
        self._identity(name)
        rows = message.max_batch_size if message.HasField("max_batch_size") else None
        if rows is not None and not 0 <= rows <= MAX_BATCH_ROWS:
            self._refuse("max_batch_size", f"expected 0 to {MAX_BATCH_ROWS}, got {rows}")
        parameters = {key: message.parameters[key].string_value for key in sorted(message.parameters)}
        for key in parameters:
            if key not in PARAMETERS and not is_shape_rule(key) and not is_batch_rule(key):
                self._refuse(f"parameters{{{key}}}", f"not supported: expected one of {', '.join(PARAMETERS)}")
        batching = message.dynamic_batching if message.HasField("dynamic_batching") else None
        instances = self._instances()
        session = self._session(parameters)
        places = self._places(session, parameters)
        return Parsed(
            ModelConfig(
                max_batch_size=rows,
                inputs=self._tensors("input"),
                outputs=self._tensors("output"),
                version_policy=self._version_policy(),
                instances=instances,
                places=places,
                max_queue_delay_us=self._queue_delay(batching),
                preferred_batch_sizes=self._preferred(batching, rows),
                preserve_ordering=bool(batching is not None and batching.preserve_ordering),
                queues=queues_of(batching, self._refuse),
                intra_op_threads=self._whole(parameters, "intra_op_thread_count", 0, 1024) or None,
                slo_p99_us=self._slo(parameters),
                session=session,
                on_cpu=not places and self._has_cpu_group(),
                warm_ups=tuple(self._warm_up(index) for index in range(len(message.model_warmup))),
                parameters=tuple((key, value) for key, value in parameters.items() if key != "batching_reason"),
            ),
            self._origin,
            self._lines,
        )

    def _identity(self, name: str) -> None:
        message = self._message
        expected = {
            "name": (name, "the name of the model's directory"),
            "platform": ("onnxruntime_onnx", "ONNX models are served"),
            "backend": ("onnxruntime", "ONNX models are served"),
            "default_model_filename": ("model.onnx", "the model's file has this name"),
        }
        for key, (value, why) in expected.items():
            found = getattr(message, key)
            if found and found != value:
                self._refuse(key, f"expected {value!r}, {why}; got {found!r}")

    def _tensors(self, kind: str) -> tuple[TensorConfig, ...]:
        found: list[TensorConfig] = []
        for index, tensor in enumerate(getattr(self._message, kind)):
            place = f"{kind}[{index}]"
            if not tensor.name or tensor.name in [other.name for other in found]:
                self._refuse(place, f"expected a name that no other {kind} has, got {tensor.name!r}")
            if len(tensor.dims) > MAX_DIMS or len(tensor.reshape.shape) > MAX_DIMS:
                self._refuse(f"{place}.dims", f"expected at most {MAX_DIMS} dimensions, got {len(tensor.dims)}")
            for size in (*tensor.dims, *tensor.reshape.shape):
                if size < -1 or size == 0 or size > MAX_SIZE:
                    self._refuse(f"{place}.dims", f"expected sizes from 1 to {MAX_SIZE}, or -1, got {size}")
            reshape = None
            if tensor.HasField("reshape"):
                reshape = tuple(tensor.reshape.shape)
                self._check_reshape(f"{place}.reshape", tuple(tensor.dims), reshape)
            label_file = getattr(tensor, "label_filename", "")
            if label_file and not _FILE_NAME.fullmatch(label_file):
                self._refuse(f"{place}.label_filename", f"expected the name of a file, got {label_file!r}")
            layout = self._enum_name(tensor, "format") if kind == "input" else "FORMAT_NONE"
            if layout not in ("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"):
                self._refuse(f"{place}.format", f"expected FORMAT_NONE, FORMAT_NHWC or FORMAT_NCHW, got {layout}")
            if layout != "FORMAT_NONE" and len(tensor.dims) not in (3, 4):
                self._refuse(f"{place}.format", f"expected three dims, or four with a batch axis, beside {layout}")
            found.append(
                TensorConfig(
                    tensor.name, self._datatype(tensor, place), tuple(tensor.dims), reshape, layout, label_file
                )
            )
        return tuple(found)

    def _check_reshape(self, place: str, dims: tuple[int, ...], shape: tuple[int, ...]) -> None:
        if not dims or any(size < 1 for size in (*dims, *shape)):
            self._refuse(place, f"expected fixed sizes in dims and shape, got {list(dims)} and {list(shape)}")
        if _count(dims) != _count(shape):
            self._refuse(place, f"expected as many elements as dims {list(dims)} have, got {list(shape)}")

    def _datatype(self, tensor: Any, place: str) -> str | None:
        name = self._enum_name(tensor, "data_type")
        if name == "TYPE_INVALID":
            return None
        if name not in _BY_CONFIG_NAME:
            self._refuse(f"{place}.data_type", f"expected one of {', '.join(_BY_CONFIG_NAME)}, got {name}")
        return _BY_CONFIG_NAME[name]

    @staticmethod
    def _enum_name(message: Any, key: str) -> str:
        number = getattr(message, key)
        found = message.DESCRIPTOR.fields_by_name[key].enum_type.values_by_number.get(number)
        return str(number) if found is None else found.name

    def _version_policy(self) -> VersionPolicy | None:
        policy = self._message.version_policy
        kind = policy.WhichOneof("policy_choice")
        if kind is None:
            return None
        if kind == "all":
            return VersionPolicy("all")
        if kind == "latest":
            return VersionPolicy("latest", count=policy.latest.num_versions or 1)
        versions = tuple(dict.fromkeys(policy.specific.versions))
        if not versions or min(versions) < 0:
            self._refuse("version_policy.specific", f"expected versions, got {list(versions)}")
        return VersionPolicy("specific", versions=versions)

    def _instances(self) -> int | None:
        groups = self._message.instance_group
        count = 0
        for index, group in enumerate(groups):
            place = f"instance_group[{index}]"
            kind = self._enum_name(group, "kind")
            if kind == "KIND_MODEL":
                self._refuse(f"{place}.kind", "KIND_MODEL is not available: expected KIND_AUTO, KIND_CPU or KIND_GPU")
            if kind == "KIND_GPU" and not group.gpus:
                group.gpus.append(0)
            if group.gpus and (kind == "KIND_CPU" or min(group.gpus) < 0):
                self._refuse(
                    f"{place}.gpus", f"expected none beside KIND_CPU, else numbers from 0, got {list(group.gpus)}"
                )
            if len(set(group.gpus)) < len(group.gpus):
                self._refuse(f"{place}.gpus", f"expected each GPU once, got {list(group.gpus)}")
            if group.count < 0:
                self._refuse(f"{place}.count", f"expected at least 1, got {group.count}")
            count += (group.count or 1) * max(1, len(group.gpus))
        gpus = self._gpus()
        for index, group in enumerate(groups):
            if gpus and not group.gpus and self._enum_name(group, "kind") != "KIND_CPU":
                self._refuse(f"instance_group[{index}].kind", "expected KIND_CPU or KIND_GPU beside a group with GPUs")
        if len(gpus) + self._has_cpu_group() > MAX_DEVICES:
            self._refuse("instance_group[0].gpus", f"expected at most {MAX_DEVICES} devices in all groups")
        if count > MAX_INSTANCES:
            self._refuse("instance_group[0].count", f"expected at most {MAX_INSTANCES} in all groups, got {count}")
        return count or None

    def _gpus(self) -> list[int]:
        """Those of all groups, in their order."""
        return list(dict.fromkeys(gpu for group in self._message.instance_group for gpu in group.gpus))

    def _has_cpu_group(self) -> bool:
        return any(self._enum_name(group, "kind") == "KIND_CPU" for group in self._message.instance_group)

    def _places(self, session: SessionSettings, parameters: dict[str, str]) -> tuple[Place, ...]:
        """The device of each instance; () if all of them have the same. Accelerators belong to the devices that they
        are for.
        """
        gpus = self._gpus()
        if len(gpus) + self._has_cpu_group() < 2:
            return ()
        accelerators = session.providers
        on_cpu = tuple(provider for provider in accelerators if provider.name not in (CUDA, TENSORRT))
        on_gpu = tuple(provider for provider in accelerators if provider not in on_cpu) or (Provider(CUDA),)
        counts: dict[Place, int] = {}
        for group in self._message.instance_group:
            places = [
                Place(f"cuda:{gpu}", tuple(self._on_gpu(provider, parameters, gpu) for provider in on_gpu))
                for gpu in group.gpus
            ]
            for place in places or [Place(CPU, on_cpu)]:
                counts[place] = counts.get(place, 0) + (group.count or 1)
        return tuple(place for place, count in counts.items() for _ in range(count))

    def _queue_delay(self, batching: Any) -> int | None:
        if batching is None:
            return None
        delay_us = int(batching.max_queue_delay_microseconds)
        if delay_us > MAX_DELAY_US:
            self._refuse(
                "dynamic_batching.max_queue_delay_microseconds", f"expected at most {MAX_DELAY_US}, got {delay_us}"
            )
        return delay_us

    def _preferred(self, batching: Any, rows: int | None) -> tuple[int, ...]:
        sizes = tuple(batching.preferred_batch_size) if batching is not None else ()
        place = "dynamic_batching.preferred_batch_size"
        for size in sizes:
            if size < 1 or (rows is not None and size > rows):
                self._refuse(place, f"expected 1 to max_batch_size{'' if rows is None else f' {rows}'}, got {size}")
        return sizes

    def _whole(self, parameters: dict[str, str], key: str, low: int, high: int) -> int:
        text = parameters.get(key, "0")
        if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not low <= int(text) <= high:
            self._refuse(f"parameters{{{key}}}", f"expected a number from {low} to {high}, got {text!r}")
        return int(text)

    def _slo(self, parameters: dict[str, str]) -> int | None:
        text = parameters.get("slo_p99_ms")
        if text is None:
            return None
        value = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII) else 0.0
        if not 0.001 <= value <= MAX_SLO_MS:
            self._refuse(
                "parameters{slo_p99_ms}", f"expected milliseconds from 0.001 to {MAX_SLO_MS}, such as 20, got {text!r}"
            )
        return round(value * 1000)

    def _switch(self, parameters: dict[str, str], key: str) -> bool | None:
        return bool(self._whole(parameters, key, 0, 1)) if key in parameters else None

    def _session(self, parameters: dict[str, str]) -> SessionSettings:
        optimization = self._message.optimization
        level = optimization.graph.level
        if level not in _GRAPH_LEVELS:
            self._refuse("optimization.graph.level", f"expected one of {_GRAPH_LEVELS}, got {level}")
        providers: list[Provider] = []
        for kind, known in (("gpu", GPU_ACCELERATORS), ("cpu", CPU_ACCELERATORS)):
            accelerators = getattr(optimization.execution_accelerators, f"{kind}_execution_accelerator")
            for index, accelerator in enumerate(accelerators):
                place = f"optimization.execution_accelerators.{kind}_execution_accelerator[{index}]"
                if accelerator.name not in known:
                    self._refuse(f"{place}.name", f"expected one of {', '.join(known)}, got {accelerator.name!r}")
                try:
                    providers.append(of_accelerator(accelerator.name, accelerator.parameters))
                except ValueError as error:
                    self._refuse(f"{place}.parameters", str(error))
        gpus = self._gpus()
        if len(gpus) + self._has_cpu_group() < 2:
            if gpus and not providers:
                providers.append(Provider(CUDA))
            providers = [self._on_gpu(provider, parameters, *gpus) for provider in providers]
        entry = "session.use_device_allocator_for_initializers"
        is_parallel = bool(self._switch(parameters, "execution_mode"))
        inter_op_threads = self._whole(parameters, "inter_op_thread_count", 0, 1024)
        use_device_allocator = self._switch(parameters, entry)
        return SessionSettings(
            is_parallel=is_parallel,
            inter_op_threads=inter_op_threads if is_parallel else 1,
            mem_arena=self._switch(parameters, "enable_mem_arena"),
            mem_pattern=self._switch(parameters, "enable_mem_pattern"),
            graph_level=level,
            providers=tuple({provider.name: provider for provider in reversed(providers)}.values())[::-1],
            entries=() if use_device_allocator is None else ((entry, str(int(use_device_allocator))),),
        )

    @staticmethod
    def _on_gpu(provider: Provider, parameters: dict[str, str], gpu: int | None = None) -> Provider:
        """The provider with the GPU that the instances name and the options that Triton has as parameters."""
        if provider.name not in (CUDA, TENSORRT):
            return provider
        options = {key: parameters[key] for key in _CUDA_PARAMETERS if key in parameters and provider.name == CUDA}
        if gpu is not None:
            options["device_id"] = str(gpu)
        return provider._replace(options=tuple(sorted({**options, **dict(provider.options)}.items())))

    def _warm_up(self, index: int) -> WarmUp:
        sample, place = self._message.model_warmup[index], f"model_warmup[{index}]"
        if sample.count > MAX_WARM_UP_COUNT:
            self._refuse(f"{place}.count", f"expected at most {MAX_WARM_UP_COUNT}, got {sample.count}")
        if sample.batch_size > MAX_BATCH_ROWS:
            self._refuse(f"{place}.batch_size", f"expected at most {MAX_BATCH_ROWS}, got {sample.batch_size}")
        inputs = []
        for name in sorted(sample.inputs):
            tensor, here = sample.inputs[name], f"{place}.inputs{{{name}}}"
            datatype = self._datatype(tensor, here)
            kind = tensor.WhichOneof("input_data_type")
            if datatype is None or kind is None:
                self._refuse(here, "expected a data_type, and zero_data or random_data")
            if any(size < 0 for size in tensor.dims) or _count(tensor.dims) > MAX_WARM_UP_ELEMENTS:
                self._refuse(f"{here}.dims", f"expected sizes, not too large ones, got {list(tensor.dims)}")
            if kind == "random_data" and datatype == "BYTES":
                self._refuse(f"{here}.random_data", "not supported for strings: expected zero_data")
            inputs.append(WarmUpInput(name, datatype, tuple(tensor.dims), kind == "random_data"))
        return WarmUp(sample.name, max(1, sample.batch_size), sample.count or 1, tuple(inputs))


def _count(dims: Any) -> int:
    count = 1
    for size in dims:
        count *= size
    return count
