// Makes the calls of grpc_calls.py with grpc-js: `node grpcjs_driver.js NODE_MODULES`, the job on standard input.
"use strict";
const path = require("path");
const grpc = require(path.join(process.argv[2], "@grpc", "grpc-js"));

const asIs = (bytes) => bytes;

function metadataOf(call) {
  const metadata = new grpc.Metadata();
  for (const [name, text] of call.metadata) {
    metadata.add(name, name.endsWith("-bin") ? Buffer.from(text, "hex") : text);
  }
  return metadata;
}

function make(client, call) {
  return new Promise((resolve) => {
    const replies = [];
    const options = call.timeout_ms === null ? {} : { deadline: Date.now() + call.timeout_ms };
    const sent = call.messages.map((text) => Buffer.from(text, "hex"));
    const end = (status) =>
      resolve({ code: status.code, text: status.details, replies: replies.map((one) => one.toString("hex")) });
    if (!call.stream) {
      const flow = client.makeUnaryRequest(call.path, asIs, asIs, sent[0], metadataOf(call), options, (error, reply) => {
        if (!error) replies.push(reply);
      });
      flow.on("status", end);
      if (call.cancel) flow.cancel();
      return;
    }
    const flow = client.makeBidiStreamRequest(call.path, asIs, asIs, metadataOf(call), options);
    flow.on("error", () => {});
    flow.on("status", end);
    const next = () => {
      if (replies.length < sent.length) flow.write(sent[replies.length]);
      if (replies.length + 1 >= sent.length && !call.open && !call.cancel) flow.end();
    };
    flow.on("data", (reply) => {
      replies.push(reply);
      if (call.cancel) flow.cancel();
      else if (replies.length < sent.length) next();
    });
    // Cancelled within this turn of the loop, grpc-js would say so here but open the stream all the same.
    if (call.cancel === "begun") setImmediate(() => flow.cancel());
    else next();
  });
}

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const job = JSON.parse(Buffer.concat(chunks).toString());
  const client = new grpc.Client(job.address, grpc.credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
  const results = [];
  for (const call of job.calls) results.push(await make(client, call));
  client.close();
  process.stdout.write(JSON.stringify(results));
}

main();
