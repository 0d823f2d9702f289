"""Runs OpenVINO Model Server's client, ovmsclient, a script for the interpreter of .venvs/ovmsclient.

    python ovms_driver.py grpc|http ADDRESS

Prints what it got as JSON: the same keys for both of its transports, which speak TensorFlow Serving's protocols.
"""

import json
import sys

import numpy as np
import ovmsclient


def ask(call, *arguments, **named):
    """The result, or the exception's class and text."""
    try:
        found = call(*arguments, **named)
    except (ovmsclient.ModelServerError, ovmsclient.InvalidInputError) as error:
        return [type(error).__name__, str(error)]
    if isinstance(found, dict):
        return {str(key): one.tolist() if isinstance(one, np.ndarray) else one for key, one in found.items()}
    return found.tolist() if isinstance(found, np.ndarray) else found


def main():
    make = {"grpc": ovmsclient.make_grpc_client, "http": ovmsclient.make_http_client}[sys.argv[1]]
    client = make(sys.argv[2])
    row = {"x": np.array([[1, 2, 3]], np.float32)}
    digits = {"image": np.zeros((2, 64), np.float32)}
    results = {
        "status": ask(client.get_model_status, "fixed"),
        "version": ask(client.get_model_status, "fixed", 7),
        "metadata": ask(client.get_model_metadata, "mnist"),
        "one": ask(client.predict, row, "mnist", timeout=10.0),
        "versioned": ask(client.predict, row, "mnist", 1),
        "several": ask(client.predict, digits, "digits"),
        "unknown": ask(client.predict, row, "none"),
        "refused": ask(client.predict, {"y": row["x"]}, "mnist"),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
