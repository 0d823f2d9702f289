"""Makes the calls of grpc_calls.py with grpclib: a script for the interpreter of .venvs/grpclib."""

import asyncio
import json
import sys

from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from multidict import MultiDict


class Bytes(CodecBase):
    """Messages are bytes."""

    __content_subtype__ = "proto"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data


def result(code, text, replies):
    return {"code": code, "text": text or "", "replies": [reply.hex() for reply in replies]}


async def make(channel, call):
    metadata = MultiDict(
        (name, bytes.fromhex(text) if name.endswith("-bin") else text) for name, text in call["metadata"]
    )
    cardinality = Cardinality.STREAM_STREAM if call["stream"] else Cardinality.UNARY_UNARY
    timeout_s = call["timeout_ms"] and call["timeout_ms"] / 1000
    sent = [bytes.fromhex(one) for one in call["messages"]]
    replies = []
    try:
        async with channel.request(
            call["path"], cardinality, bytes, bytes, timeout=timeout_s, metadata=metadata
        ) as flow:
            await flow.send_request()
            if call["cancel"] == "begun":
                await flow.cancel()
                return result(Status.CANCELLED.value, "", replies)
            for at, one in enumerate(sent):
                await flow.send_message(one, end=not call["open"] and not call["cancel"] and at + 1 == len(sent))
                reply = await flow.recv_message()
                if reply is None:
                    break
                replies.append(reply)
                if call["cancel"]:
                    await flow.cancel()
                    return result(Status.CANCELLED.value, "", replies)
            if not sent and not call["open"]:
                await flow.end()
            if call["stream"]:
                while (reply := await flow.recv_message()) is not None:
                    replies.append(reply)
            await flow.recv_trailing_metadata()
    except GRPCError as error:
        return result(error.status.value, error.message, replies)
    except TimeoutError:
        return result(Status.DEADLINE_EXCEEDED.value, "", replies)
    except StreamTerminatedError as error:
        return result(-1, str(error), replies)
    return result(Status.OK.value, "", replies)


async def main():
    job = json.load(sys.stdin)
    host, port = job["address"].rsplit(":", 1)
    async with Channel(host, int(port), codec=Bytes()) as channel:
        results = [await make(channel, call) for call in job["calls"]]
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
