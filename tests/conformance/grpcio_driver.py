"""Makes the calls of grpc_calls.py with grpcio, `sync` or `aio`: a script for the interpreter of .venvs/grpcio."""

import asyncio
import json
import queue
import sys

import grpc

OPTIONS = [("grpc.max_receive_message_length", 8 << 20), ("grpc.enable_http_proxy", 0)]


def metadata_of(call):
    return [(name, bytes.fromhex(text) if name.endswith("-bin") else text) for name, text in call["metadata"]]


def result(code, text, replies):
    return {"code": code.value[0], "text": text or "", "replies": [reply.hex() for reply in replies]}


def stream(channel, call, timeout_s):
    """Sends the next message when the reply to the one before has come."""
    sending = queue.SimpleQueue()
    waiting = [bytes.fromhex(one) for one in call["messages"]]
    ends = [] if call["open"] or call["cancel"] else [None]
    for one in [*waiting[:1], *(ends if len(waiting) < 2 else [])]:
        sending.put(one)
    flow = channel.stream_stream(call["path"])(iter(sending.get, None), timeout=timeout_s, metadata=metadata_of(call))
    if call["cancel"] == "begun":
        flow.cancel()
    replies = []
    try:
        for reply in flow:
            replies.append(reply)
            if call["cancel"] == "replied":
                flow.cancel()
            for one in [*waiting[len(replies) : len(replies) + 1], *(ends if len(replies) + 1 >= len(waiting) else [])]:
                sending.put(one)
    except grpc.RpcError:
        pass
    sending.put(None)
    return result(flow.code(), flow.details(), replies)


def sync(address, calls):
    with grpc.insecure_channel(address, OPTIONS) as channel:
        for call in calls:
            timeout_s = call["timeout_ms"] and call["timeout_ms"] / 1000
            if call["stream"]:
                yield stream(channel, call, timeout_s)
                continue
            flow = channel.unary_unary(call["path"]).future(
                bytes.fromhex(call["messages"][0]), timeout=timeout_s, metadata=metadata_of(call)
            )
            if call["cancel"]:
                flow.cancel()
                yield result(flow.code(), flow.details(), [])
            else:
                failed = flow.exception()
                yield result(flow.code(), flow.details(), [] if failed else [flow.result()])


async def aio(address, calls):
    results = []
    async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
        for call in calls:
            timeout_s = call["timeout_ms"] and call["timeout_ms"] / 1000
            method = (channel.stream_stream if call["stream"] else channel.unary_unary)(call["path"])
            replies = []
            if call["stream"]:
                flow = method(timeout=timeout_s, metadata=metadata_of(call))
                if call["cancel"] == "begun":
                    flow.cancel()
            else:
                flow = method(bytes.fromhex(call["messages"][0]), timeout=timeout_s, metadata=metadata_of(call))
                if call["cancel"]:
                    flow.cancel()
            try:
                if call["stream"]:
                    await drive(flow, call, replies)
                else:
                    replies.append(await flow)
            except (grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError):
                pass
            results.append(result(await flow.code(), await flow.details(), replies))
    return results


async def drive(flow, call, replies):
    if call["cancel"] == "begun":
        return
    for one in call["messages"]:
        await flow.write(bytes.fromhex(one))
        reply = await flow.read()
        if reply is grpc.aio.EOF:
            return
        replies.append(reply)
        if call["cancel"]:
            flow.cancel()
            return
    if not call["open"]:
        await flow.done_writing()
    while (reply := await flow.read()) is not grpc.aio.EOF:
        replies.append(reply)


def main():
    job = json.load(sys.stdin)
    if sys.argv[1] == "aio":
        results = asyncio.run(aio(job["address"], job["calls"]))
    else:
        results = list(sync(job["address"], job["calls"]))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
