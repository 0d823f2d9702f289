"""`headrace ps`: the models of a running server, one line a version, with state, device, requests and memory."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from server.cli_client import Client, add_server_options
from server.cli_inspect import size_text
from server.cli_parser import CommandError, Parser, nearest
from server.log import escape
from server.supervisor.banner import align

_HEADINGS = ["model", "version", "state", "device", "requests", "failed", "mean", "memory", ""]
MAX_REASON_CHARS = 240


def run(arguments: list[str]) -> int:
    parser = Parser(
        "ps",
        "Prints the models of a running server: state, device, requests since it started, mean time of an answer, "
        "memory of the executor process, and why a version does not serve.",
        ["headrace ps", "headrace ps digits --json | jq '.[].state'", "headrace ps --url unix:/run/headrace.sock"],
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these models")
    add_server_options(parser, 30.0)
    options = parser.parse(arguments)
    rows = table_rows(Client(options.url, options.timeout))
    known = {row["model"] for row in rows}
    for name in options.names:
        if name not in known:
            hint = nearest(name, known)
            advice = f": did you mean {hint}?" if hint else ""
            raise CommandError(f"not found: the server has no model {name!r}{advice}", os.EX_NOINPUT)
    if options.names:
        rows = [row for row in rows if row["model"] in options.names]
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    else:
        sys.stdout.write("\n".join(align([_HEADINGS, *map(_cells, rows)])) + "\n")
    return os.EX_OK


def table_rows(client: Client) -> list[dict[str, Any]]:
    """One row for each version that the server knows, loaded or not, by name and version."""
    statistics = {(one["name"], one["version"]): one for one in client.statistics().get("model_stats", [])}
    rows: list[dict[str, Any]] = []
    for entry in client.repository_index():
        name, version = str(entry.get("name")), str(entry.get("version"))
        state = str(entry.get("state"))
        row: dict[str, Any] = {"model": name, "version": version, "state": state, "device": None}
        stats = statistics.get((name, version), {})
        counts = stats.get("inference_stats", {})
        success, fail = counts.get("success", {}), counts.get("fail", {})
        row["requests"] = success.get("count", 0) + fail.get("count", 0)
        row["failed"] = fail.get("count", 0)
        row["mean_ms"] = round(success["ns"] / success["count"] / 1e6, 3) if success.get("count") else None
        row["memory_bytes"] = sum(one.get("byte_size", 0) for one in stats.get("memory_usage", [])) or None
        if state == "READY":
            row["device"] = _device(client.configuration(name, version))
        row["reason"] = str(entry.get("reason", ""))
        rows.append(row)
    return rows


def _device(configuration: dict[str, Any]) -> str | None:
    """`cpu`, `gpu 0,1`, `gpu 0, cpu`, or None where the configuration does not say."""
    found = []
    for group in configuration.get("instance_group", []):
        kind = str(group.get("kind", "")).removeprefix("KIND_").lower()
        numbers = ",".join(map(str, group.get("gpus", [])))
        found.append(f"{kind} {numbers}".strip())
    return ", ".join(filter(None, dict.fromkeys(found))) or None


def _cells(row: dict[str, Any]) -> list[str]:
    mean, memory = row["mean_ms"], row["memory_bytes"]
    return [
        escape(row["model"]),
        escape(row["version"]),
        escape(row["state"]),
        escape(row["device"] or "-"),
        str(row["requests"]),
        str(row["failed"]),
        "-" if mean is None else f"{mean:.3g} ms",
        "-" if memory is None else size_text(memory),
        escape(
            row["reason"] if len(row["reason"]) <= MAX_REASON_CHARS else row["reason"][: MAX_REASON_CHARS - 1] + "…"
        ),
    ]
