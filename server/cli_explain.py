"""`headrace explain`: how a model would be served and why, as a config.pbtxt that says the same."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from server import config
from server.cli_inspect import size_text
from server.cli_parser import CommandError, Parser
from server.log import escape
from server.models import repository
from server.models.config_document import max_batch_size, text_of
from server.models.instance_places import too_many
from server.models.lane_settings import LaneSettings, data_bytes, settings_of
from server.models.providers import Place
from server.models.repository import ModelVersion
from server.option_values import FASTEST
from server.supervisor.executor_groups import best_device, group_of


def run(arguments: list[str]) -> int:
    parser = Parser(
        "explain",
        "Prints the configuration that a model is served with, what was inferred included, as a config.pbtxt; comments "
        "say why, and who runs each node of its graph. Settings of the server are taken from its environment "
        "variables, HEADRACE_DEVICE among them. The model is loaded, in a process of its own, to see who runs it.",
        [
            "headrace explain repository/NAME",
            "headrace explain model.onnx > repository/NAME/config.pbtxt     # for repository/NAME/1/model.onnx",
        ],
    )
    parser.add_argument("--no-load", action="store_true", help="do not load it, and say nothing of its nodes")
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help="an .onnx file, a directory with model.onnx, or NAME of NAME/VERSION/model.onnx",
    )
    options = parser.parse(arguments)
    found = repository.scan(options.model)
    names = sorted({version.name for version in found})
    if len(names) > 1:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise CommandError(
            f"found: {len(names)} models in {options.model} ({shown}); expected: one; fix: headrace explain "
            f"{options.model / names[0]}",
            os.EX_USAGE,
        )
    version = found[-1]
    if version.error is not None:
        raise CommandError(f"{version.name} version {version.version} cannot be served: {version.error}", os.EX_DATAERR)
    server = config.load({}, path=options.model)
    if reason := too_many(version.config, server):
        raise CommandError(f"{version.name} version {version.version} cannot be served: {reason}", os.EX_DATAERR)
    settings = settings_of(version, server)
    for line in (*_comments(version, settings), *_placements(version, settings, not options.no_load)):
        sys.stdout.write(f"# {escape(line)}".rstrip() + "\n")
    if not options.no_load and (group := group_of(version.config, server, best_device(server))) is not None:
        sys.stdout.write(f"# executor: one process for all models on {group} (--executors {server.executors})\n")
    text = text_of(version, settings)
    if options.model.is_file():
        # A configuration lies in a model's directory, and there the directory's name is the model's.
        text = text.replace(f"name: {json.dumps(version.name)}\n", "", 1)
    sys.stdout.write("\n" + text)
    return os.EX_OK


def _comments(version: ModelVersion, settings: LaneSettings) -> Iterator[str]:
    model, batching, plan = version.model, version.batching, settings.plan
    assert model is not None and batching is not None
    yield f"{version.name} version {version.version}, {model.path}"
    if batching.batched:
        axis = f" {batching.symbol!r}" if batching.symbol else ""
        yield f"batch axis: 0{axis} of every input and output"
    elif max_batch_size(version, settings):
        yield "batch axis: 0 of every input and output; rows of different requests do not run together"
    else:
        yield "batch axis: none"
    yield f"batching: {'yes' if batching.batched else 'no'}: {batching.reason}"
    if batching.batched and plan.row_capacity < settings.max_batch_size:
        yield f"max_batch_size: {plan.row_capacity} in place of {settings.max_batch_size}, since memory is limited"
    if batching.batched and settings.preferred_rows > plan.row_capacity:
        yield f"preferred_batch_size: {settings.preferred_rows} is never reached: batches end at {plan.row_capacity}"
    yield f"queue: {plan.slab_count} slabs of {plan.row_capacity if batching.batched else 1} rows"
    yield f"threads: {settings.intra_op_threads}; without intra_op_thread_count below they follow the host"
    kind = "shared memory" if plan.rows_mode else "shared memory at most, used as far as requests fill it"
    yield f"memory: {size_text(data_bytes(version, settings))} of {kind}"
    yield f"model file: {size_text(_file_bytes(version))}"


def _placements(version: ModelVersion, settings: LaneSettings, is_loaded: bool) -> Iterator[str]:
    """Who runs the model, device by device."""
    for place in dict.fromkeys(settings.places):
        count = f"{settings.places.count(place)} x {settings.intra_op_threads} threads"
        if is_loaded:
            yield from _placement(version, place, count)
        else:
            yield f"device: {place.label}, {count}"
    if len(set(settings.places)) > 1:
        yield "several devices: a batch goes to the one that answers it first; a process of its own"


def _placement(version: ModelVersion, place: Place, count: str) -> Iterator[str]:
    """Who runs it there, node by node."""
    from server.supervisor.trial import nodes

    device = place.device
    if device == FASTEST and not place.providers:
        yield "device fastest: measured when a server loads the model; this is how the CPU runs it"
    session = dataclasses.replace(version.config.session, providers=place.providers)
    try:
        where, placed, fallback = nodes(version.path, session, device)
    except ValueError as error:
        text = f"{version.name} version {version.version} cannot be loaded: {error}"
        raise CommandError(text, os.EX_UNAVAILABLE) from None
    yield f"device: {where}, {count}"
    if fallback:
        yield f"on the CPU, not on an accelerator: {fallback}"
    groups: dict[str, list[str]] = {}
    for provider, operator in placed:
        groups.setdefault(provider, []).append(operator)
    for provider, operators in groups.items():
        kinds = sorted({(operators.count(kind), kind) for kind in operators}, reverse=True)
        shown = ", ".join(f"{kind} x{number}" if number > 1 else kind for number, kind in kinds)
        yield f"nodes: {len(operators)} of {len(placed)} on {provider}: {shown}"


def _file_bytes(version: ModelVersion) -> int:
    assert version.model is not None
    weights = {tensor.location for tensor in version.model.external_data}
    return version.model.file_bytes + sum((version.path.parent / name).stat().st_size for name in weights)
