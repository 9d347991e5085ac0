// The shop's courier: collects parcels, asks the pricing service what that costs, and says where they are.
// Ordinary grpc-js code; there is no tracing in it.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const port = Number(process.env.COURIER_PORT || 18089);
const pricingPort = Number(process.env.PRICING_PORT || 18083);
const accessLog = process.env.ACCESS_LOG
  ? fs.createWriteStream(process.env.ACCESS_LOG, { flags: "a" })
  : process.stdout;
const keptAlive = new http.Agent({ keepAlive: true });
const definition = protoLoader.loadSync(path.join(__dirname, "..", "shop.proto"));
const { shop } = grpc.loadPackageDefinition(definition);

function askPrice(id) {
  return new Promise((resolve, reject) => {
    const call = http.get(
      { host: "127.0.0.1", port: pricingPort, path: `/price/${id}`, agent: keptAlive },
      (answer) => {
        const parts = [];
        answer.on("data", (part) => parts.push(part));
        answer.on("end", () => resolve(JSON.parse(Buffer.concat(parts).toString()).price));
        answer.on("error", reject);
      },
    );
    call.on("error", reject);
  });
}

// One JSON object for each call: when it ended, what it was, how many messages it sent back.
function logAccess(call, start, status, messages) {
  const duration = Number(process.hrtime.bigint() - start) / 1e9;
  const entry = {
    time: Date.now() / 1000,
    method: call.getPath().slice(1),
    id: call.request.id,
    status: grpc.status[status],
    messages,
    duration: Number(duration.toFixed(6)),
  };
  accessLog.write(JSON.stringify(entry) + "\n");
}

// A handler of one answer; what it throws is the call's status.
function unary(handler) {
  return async (call, callback) => {
    const start = process.hrtime.bigint();
    try {
      const answer = await handler(call.request);
      callback(null, answer);
      logAccess(call, start, grpc.status.OK, 1);
    } catch (error) {
      callback(error);
      logAccess(call, start, error.code ?? grpc.status.UNKNOWN, 0);
    }
  };
}

async function collect(parcel) {
  return { handledBy: ["courier"], price: await askPrice(parcel.id) };
}

async function find() {
  throw Object.assign(new Error("nobody has seen it"), { code: grpc.status.NOT_FOUND });
}

function track(call) {
  const start = process.hrtime.bigint();
  const places = ["van", "road", "door"];
  places.forEach((place) => call.write({ place }));
  call.end();
  logAccess(call, start, grpc.status.OK, places.length);
}

const server = new grpc.Server();
server.addService(shop.Courier.service, { collect: unary(collect), find: unary(find), track });
server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
  console.error(`courier listens on 127.0.0.1:${port}`);
});

// Let the open calls end up in the access log, then leave.
process.on("SIGTERM", () => {
  server.tryShutdown(() => keptAlive.destroy());
});
