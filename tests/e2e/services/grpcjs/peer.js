// node peer.js server PORT LOG
// node peer.js client PORT LOG COUNT CONCURRENCY [KIND...]
//
// The same as grpc_peer.py, of grpc-js: see there for the kinds of calls. Messages are plain bytes.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");

const KINDS = ["unary", "server", "client", "both", "fail", "halfway", "slow", "cancel"];
// A server of grpc-js must know all its methods.
const NUMBERS = 1000;

const streamsRequests = (kind) => kind === "client" || kind === "both";
const streamsResponses = (kind) => kind === "server" || kind === "both" || kind === "halfway";
const asIs = (message) => message;
const codeOf = (number) => (number % 16) + 1;

const [role, port, logPath] = process.argv.slice(2);
const logFile = fs.openSync(logPath, "a");
const log = (method, status) => fs.writeSync(logFile, JSON.stringify({ method, status }) + "\n");

function messages(letter, many, number, size) {
  return Array.from({ length: many ? number % 5 : 1 }, () => Buffer.alloc(size, letter));
}

/** Answers a call of which all requests have come. */
function answer(call, callback, kind, number, method) {
  const streams = streamsResponses(kind);
  if (kind === "fail" || kind === "halfway") {
    log(method, grpc.status[codeOf(number)]);
    const failure = { code: codeOf(number), details: "as asked" };
    if (streams) {
      call.write(Buffer.alloc(2 * number, "r"));
      call.emit("error", failure);
    } else {
      callback(failure);
    }
    return;
  }
  log(method, "OK");
  const all = messages("r", streams, number, 2 * number);
  if (streams) {
    all.forEach((message) => call.write(message));
    call.end();
  } else {
    callback(null, all[0]);
  }
}

function handler(kind, number, method) {
  return (call, callback) => {
    if (kind === "slow" || kind === "cancel") {
      call.on("cancelled", () => log(method, "CANCELLED"));
    } else if (streamsRequests(kind)) {
      call.on("data", () => {});
      call.on("end", () => answer(call, callback ?? null, kind, number, method));
    } else {
      answer(call, callback ?? null, kind, number, method);
    }
  };
}

function serve() {
  const server = new grpc.Server();
  for (const kind of KINDS) {
    const type =
      { true: { true: "bidi", false: "clientStream" }, false: { true: "serverStream", false: "unary" } }[
        streamsRequests(kind)
      ][streamsResponses(kind)];
    for (let number = 0; number < NUMBERS; number++) {
      const method = `shop.Cart/${kind}-${number}`;
      server.register("/" + method, handler(kind, number, method), asIs, asIs, type);
    }
  }
  server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error) => {
    if (error) throw error;
  });
}

/** Makes one call; its status when it is over. */
function callOnce(client, kind, number, method) {
  return new Promise((resolve) => {
    const requests = messages("q", streamsRequests(kind), number, number);
    const options = { deadline: Date.now() + (kind === "slow" ? 4000 : 60000) };
    const path = ["/" + method, asIs, asIs];
    const metadata = new grpc.Metadata();
    const done = () => {};
    let call;
    if (streamsRequests(kind)) {
      call = streamsResponses(kind)
        ? client.makeBidiStreamRequest(...path, metadata, options)
        : client.makeClientStreamRequest(...path, metadata, options, done);
      requests.forEach((message) => call.write(message));
      call.end();
    } else {
      call = streamsResponses(kind)
        ? client.makeServerStreamRequest(...path, requests[0], metadata, options)
        : client.makeUnaryRequest(...path, requests[0], metadata, options, done);
    }
    if (streamsResponses(kind)) {
      call.on("data", () => {});
      call.on("error", () => {});
    }
    call.on("status", (status) => resolve(grpc.status[status.code]));
    if (kind === "cancel") setTimeout(() => call.cancel(), 100);
  });
}

async function ask(count, concurrency, kinds) {
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  await new Promise((resolve, reject) =>
    client.waitForReady(Date.now() + 30000, (error) => (error ? reject(error) : resolve())),
  );
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const i = next++;
      const kind = kinds[i % kinds.length];
      const method = `shop.Cart/${kind}-${i}`;
      log(method, await callOnce(client, kind, i, method));
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  await new Promise((resolve) => setTimeout(resolve, 200));
  client.close();
}

if (role === "server") {
  serve();
} else {
  const [count, concurrency, ...kinds] = process.argv.slice(5);
  ask(Number(count), Number(concurrency), kinds.length ? kinds : KINDS);
}
