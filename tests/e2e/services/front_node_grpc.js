// A Node front that does what front_grpc.py's do: `front_node_grpc.js HOW PORT LOG GRPC_PORT HTTP_PORT`.
// HOW is `grpc` (it is called by gRPC) or `http`. gRPC is spoken by hand, on node:http2 as grpc-js does.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const http2 = require("node:http2");

const [how, port, log, grpcPort, httpPort] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true });
const backend = http2.connect(`http://127.0.0.1:${grpcPort}`);
const message = Buffer.from([0, 0, 0, 0, 1, 113]);
const grpcHead = { "content-type": "application/grpc", te: "trailers" };

function call(path) {
  return new Promise((resolve, reject) => {
    const stream = backend.request({ ":method": "POST", ":path": path, ...grpcHead });
    stream.on("error", reject);
    stream.on("end", resolve);
    stream.resume();
    stream.end(message);
  });
}

function get(path) {
  return new Promise((resolve, reject) => {
    http
      .get({ host: "127.0.0.1", port: httpPort, path, agent }, (response) => {
        response.resume();
        response.on("end", resolve);
      })
      .on("error", reject);
  });
}

const work = () => new Promise((resolve) => setTimeout(resolve, Math.random() * 4));

async function serve(path) {
  const number = path.split("-").pop();
  await work();
  await call(`/shop.Back/first-${number}`);
  await get(`/second-${number}`);
  await work();
  await call(`/shop.Back/third-${number}`);
  fs.appendFileSync(log, JSON.stringify({ number }) + "\n");
}

if (how === "http") {
  http.createServer(async (request, response) => {
    await serve(request.url);
    response.end("done");
  }).listen(Number(port), "127.0.0.1");
} else {
  const server = http2.createServer();
  server.on("stream", async (stream, headers) => {
    stream.resume();
    await serve(headers[":path"]);
    stream.respond({ ":status": 200, ...grpcHead }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, 4]), Buffer.from("done")]));
  });
  server.listen(Number(port), "127.0.0.1");
}
