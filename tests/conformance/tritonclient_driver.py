"""Runs NVIDIA's client a script for the interpreter of .venvs/tritonclient, nothing of the server is imported.

    python tritonclient_driver.py FOLDER

FOLDER/job.json: {"url", "steps": [step, ...]}; FOLDER/inputs.npz: the arrays that steps name. A step is
    {"call": method of the client, "arguments": {...}}                       -> {"value"}
    {"infer": "sync" | "async" | "aio", "concurrency": n, "requests": [...]} -> {"replies": [{"response", "outputs"}]}
and either, or a single reply, is {"error": text, "status": text} where the client raised InferenceServerException.
A request: model, inputs [{name, datatype, shape, array, binary}], outputs [{name, binary}] or null, classes (a count,
for all outputs) and keyword arguments of infer() as options. BF16 arrays are uint16 bits in both files, BYTES are uint8
arrays of the binary form. Results go to FOLDER/results.json and FOLDER/outputs.npz.
"""

import asyncio

import tritonclient.http as http
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException
from tritonclient_job import ClientJob, main


class Job(ClientJob):
    def result_of(self, step):
        if "call" in step:
            return self.call(step)
        if step["infer"] == "aio":
            return {"replies": asyncio.run(self.infer_aio(step))}
        return {"replies": self.infer(step)}

    def call(self, step):
        with http.InferenceServerClient(self.url) as client:
            try:
                return {"value": getattr(client, step["call"])(**step.get("arguments", {}))}
            except InferenceServerException as error:
                return failure(error)

    def infer(self, step):
        """`sync`: one after the other. `async`: all handed over at once, `concurrency` on their way at a time."""
        concurrency = step.get("concurrency", 1)
        with http.InferenceServerClient(self.url, concurrency=concurrency, **step.get("client", {})) as client:
            if step["infer"] == "async":
                waiting = [client.async_infer(**self.arguments(http, request)) for request in step["requests"]]
                return [self.take(one.get_result) for one in waiting]
            return [self.take(client.infer, **self.arguments(http, request)) for request in step["requests"]]

    async def infer_aio(self, step):
        async with aio.InferenceServerClient(self.url, conn_limit=step.get("concurrency", 100)) as client:
            waiting = [client.infer(**self.arguments(aio, request)) for request in step["requests"]]
            answers = await asyncio.gather(*waiting, return_exceptions=True)
        return [self.take(give, answer) for answer in answers]

    def arguments(self, module, request):
        outputs = request.get("outputs")
        if outputs is not None:
            outputs = [
                module.InferRequestedOutput(
                    one["name"], binary_data=one["binary"], class_count=request.get("classes", 0)
                )
                for one in outputs
            ]
        inputs = [self.input(module, one, binary_data=one["binary"]) for one in request["inputs"]]
        return {"model_name": request["model"], "inputs": inputs, "outputs": outputs, **request.get("options", {})}

    def take(self, ask, *arguments, **named):
        try:
            result = ask(*arguments, **named)
        except InferenceServerException as error:
            return failure(error)
        response = result.get_response()
        keys = {}
        for output in response["outputs"]:
            array = result.as_numpy(output["name"])
            output.pop("data", None)
            keys[output["name"]] = self.keep(output["datatype"], array)
        return {"response": response, "outputs": keys}


def give(answer):
    if isinstance(answer, BaseException):
        raise answer
    return answer


def failure(error):
    return {"error": error.message(), "status": error.status()}


if __name__ == "__main__":
    main(Job)
