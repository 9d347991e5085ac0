// node calls.js back PORT LOG COUNT [FOLDER]
// node calls.js front PORT LOG COUNT BACK_PORT [FOLDER]
// node calls.js client PORT LOG COUNT CONCURRENCY [FOLDER]
//
// A grpc-js server that calls another one for each request. Request n is /shop.Front/serve-n, its calls are
// /shop.Back/first-n and so on, and WAYS[n % WAYS.length] says how it makes them. Calls that a timer makes for nobody are
// /shop.Back/nobody-0. With FOLDER, which has cert.pem and key.pem, it is done in TLS.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");

const [role, port, logPath, countText, ...rest] = process.argv.slice(2);
const count = Number(countText);
const logFile = fs.openSync(logPath, "a");
const log = (entry) => fs.writeSync(logFile, JSON.stringify(entry) + "\n");
const asIs = (message) => message;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const read = (folder, file) => fs.readFileSync(`${folder}/${file}.pem`);

/** At most `most` of what it is given at a time; what waits goes on when another one is done. */
function limit(most) {
  let running = 0;
  const waiting = [];
  return async (work) => {
    if (running >= most) await new Promise((resolve) => waiting.push(resolve));
    else running++;
    try {
      return await work();
    } finally {
      if (waiting.length) waiting.shift()();
      else running--;
    }
  };
}

const oneByOne = limit(1);
let shared = null;

const WAYS = {
  atOnce: (n, call) => call(`first-${n}`),
  awaited: async (n, call) => {
    await Promise.resolve();
    await (async () => null)();
    await call(`first-${n}`);
  },
  ticked: (n, call) => new Promise((done) => process.nextTick(() => queueMicrotask(() => done(call(`first-${n}`))))),
  together: (n, call) => Promise.all([call(`first-${n}`), call(`second-${n}`)]),
  answered: (n, call, answer) => {
    answer();
    return call(`first-${n}`);
  },
  chained: async (n, call) => {
    await call(`first-${n}`);
    await call(`second-${n}`);
  },
  timed: async (n, call) => {
    await sleep(Math.random() * 4);
    await call(`first-${n}`);
  },
  immediate: (n, call) => new Promise((done) => setImmediate(() => done(call(`first-${n}`)))),
  read: async (n, call) => {
    await fs.promises.readFile(__filename);
    await call(`first-${n}`);
  },
  limited: (n, call) => oneByOne(() => call(`first-${n}`)),
  // Who comes while another one asks waits for the same answer, and then makes a call of its own.
  shared: async (n, call) => {
    shared ??= call(`first-${n}`).finally(() => (shared = null));
    await shared;
    await call(`second-${n}`);
  },
  // Its end lets the next of the limited ones go on.
  cancelled: (n, call, answer, request) =>
    oneByOne(async () => {
      if (!request.cancelled) await new Promise((resolve) => request.on("cancelled", resolve));
    }),
  // A stream of two messages, and a call for each.
  streamed: (n, call, answer, request) =>
    new Promise((resolve) => {
      const calls = [];
      request.on("data", () => calls.push(call(`${calls.length ? "second" : "first"}-${n}`)));
      request.on("end", () => resolve(Promise.all(calls)));
    }),
  idle: () => null,
};
const NAMES = Object.keys(WAYS);
const wayOf = (number) => NAMES[number % NAMES.length];

function connect(address, folder) {
  const credentials = folder ? grpc.credentials.createSsl(read(folder, "cert")) : grpc.credentials.createInsecure();
  const client = new grpc.Client(`localhost:${address}`, credentials);
  return (path, way) =>
    new Promise((resolve, reject) => {
      if (way === "streamed") {
        const call = client.makeBidiStreamRequest(path, asIs, asIs);
        call.on("error", reject).on("end", resolve).resume();
        call.write(Buffer.from(path));
        setTimeout(() => call.end(Buffer.from(path)), 2);
        return;
      }
      const done = (error, answer) => (error && way !== "cancelled" ? reject(error) : resolve(answer));
      const call = client.makeUnaryRequest(path, asIs, asIs, Buffer.from(path), done);
      if (way === "cancelled") setTimeout(() => call.cancel(), 4);
    });
}

function listen(server, folder) {
  const credentials = folder
    ? grpc.ServerCredentials.createSsl(null, [{ private_key: read(folder, "key"), cert_chain: read(folder, "cert") }])
    : grpc.ServerCredentials.createInsecure();
  server.bindAsync(`127.0.0.1:${port}`, credentials, (error) => {
    if (error) throw error;
  });
}

function serveBack(folder) {
  const server = new grpc.Server();
  const handler = async (call, callback) => {
    log({ path: call.request.toString() });
    await sleep(Math.random() * 5);
    callback(null, call.request);
  };
  const paths = Array.from({ length: count }, (_, n) => [`first-${n}`, `second-${n}`]).flat();
  for (const path of [...paths, "nobody-0"]) server.register(`/shop.Back/${path}`, handler, asIs, asIs, "unary");
  listen(server, folder);
}

function serveFront(backPort, folder) {
  const back = connect(backPort, folder);
  const call = (path) => back(`/shop.Back/${path}`);
  const server = new grpc.Server();
  let open = 0;
  const handle = async (number, request, callback) => {
    const way = wayOf(number);
    let answered = false;
    const answer = () => {
      if (answered) return;
      answered = true;
      open--;
      callback();
    };
    open++;
    await WAYS[way](number, call, answer, request);
    log({ number, way });
    answer();
  };
  for (let n = 0; n < count; n++) {
    const path = `/shop.Front/serve-${n}`;
    const unary = (request, callback) => handle(n, request, () => callback(null, request.request));
    const bidi = (request) => handle(n, request, () => request.end());
    if (wayOf(n) === "streamed") server.register(path, bidi, asIs, asIs, "bidi");
    else server.register(path, unary, asIs, asIs, "unary");
  }
  listen(server, folder);
  // Were there but one request, it would be taken for that one's.
  setInterval(() => open > 3 && call("nobody-0"), 3);
}

async function ask(concurrency, folder) {
  const call = connect(port, folder);
  const serve = async (number) => {
    await call(`/shop.Front/serve-${number}`, wayOf(number));
    log({ number });
  };
  let next = 0;
  // Half of them come one by one, and half at once, many in one read.
  const worker = async () => {
    while (next < count / 2) await serve(next++);
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  while (next < count) {
    const numbers = Array.from({ length: Math.min(concurrency, count - next) }, () => next++);
    await Promise.all(numbers.map(serve));
  }
  process.exit(0);
}

if (role === "back") serveBack(rest[0]);
else if (role === "front") serveFront(rest[0], rest[1]);
else ask(Number(rest[0]), rest[1]);
