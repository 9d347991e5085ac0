// node busy.js server PORT LOG HOW [FOLDER]
// node busy.js client PORT LOG HOW COUNT CONCURRENCY CONNECTIONS PAUSE_MS [FOLDER]
//
// Calls of the same 24 methods over and over, on a few connections. HOW is `grpc` (grpc-js) or `http2` (node:http2, POST).
// Method n has a message of n bytes, so its size tells the method. With FOLDER, which has cert.pem and key.pem, it is
// done in TLS.
"use strict";

const fs = require("node:fs");
const http2 = require("node:http2");
const grpc = require("@grpc/grpc-js");

const METHODS = 24;
const asIs = (message) => message;
const path = (number) => `/shop.Cart/same-${number}`;

const [role, port, logPath, how, ...rest] = process.argv.slice(2);
const logFile = fs.openSync(logPath, "a");
const log = (number) => fs.writeSync(logFile, JSON.stringify({ number }) + "\n");
const read = (folder, file) => fs.readFileSync(`${folder}/${file}.pem`);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function serveGrpc(folder) {
  const server = new grpc.Server();
  for (let number = 0; number < METHODS; number++) {
    const handler = (call, callback) => {
      log(number);
      if (number % 8 === 7) callback({ code: grpc.status.NOT_FOUND, details: "as asked" });
      else callback(null, call.request);
    };
    server.register(path(number), handler, asIs, asIs, "unary");
  }
  const credentials = folder
    ? grpc.ServerCredentials.createSsl(null, [{ private_key: read(folder, "key"), cert_chain: read(folder, "cert") }])
    : grpc.ServerCredentials.createInsecure();
  server.bindAsync(`127.0.0.1:${port}`, credentials, (error) => {
    if (error) throw error;
  });
}

function serveHttp2(folder) {
  const server = folder
    ? http2.createSecureServer({ key: read(folder, "key"), cert: read(folder, "cert") })
    : http2.createServer();
  server.on("stream", (stream, headers) => {
    log(Number(headers[":path"].split("-")[1].split("?")[0]));
    stream.resume();
    stream.on("end", () => {
      stream.respond({ ":status": 200, "content-type": "text/plain" });
      stream.end("done");
    });
  });
  server.listen(Number(port), "127.0.0.1");
}

/** A function that makes one call on a connection of its own. */
function connectGrpc(folder) {
  const credentials = folder ? grpc.credentials.createSsl(read(folder, "cert")) : grpc.credentials.createInsecure();
  const client = new grpc.Client(`localhost:${port}`, credentials, { "grpc.use_local_subchannel_pool": 1 });
  return (number) =>
    new Promise((resolve) => {
      client.makeUnaryRequest(path(number), asIs, asIs, Buffer.alloc(number, "q"), resolve);
    });
}

function connectHttp2(folder) {
  const session = folder
    ? http2.connect(`https://localhost:${port}`, { ca: read(folder, "cert") })
    : http2.connect(`http://127.0.0.1:${port}`);
  return (number) =>
    new Promise((resolve, reject) => {
      const head = { ":method": "POST", ":path": `${path(number)}?secret=${number}`, "x-shop": `cart ${number}` };
      const stream = session.request(head);
      stream.on("error", reject);
      stream.on("end", resolve);
      stream.resume();
      stream.end(Buffer.alloc(number, "q"));
    });
}

async function ask(count, concurrency, connections, pause, folder) {
  const connect = how === "grpc" ? connectGrpc : connectHttp2;
  const calls = Array.from({ length: connections }, () => connect(folder));
  let next = 0;
  const worker = async (index) => {
    while (next < count) {
      const number = next++ % METHODS;
      await calls[index % connections](number);
      log(number);
      await sleep(pause * Math.random());
    }
  };
  await Promise.all(Array.from({ length: concurrency }, (_, index) => worker(index)));
  process.exit(0);
}

if (role === "server") {
  (how === "grpc" ? serveGrpc : serveHttp2)(rest[0]);
} else {
  const [count, concurrency, connections, pause] = rest.map(Number);
  ask(count, concurrency, connections, pause, rest[4]);
}
