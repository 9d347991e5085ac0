// The shop's catalogue. It asks the pricing service for prices and reserves items there.
// Ordinary Express code; there is no tracing in it.
"use strict";

const express = require("express");
const fs = require("node:fs");
const http = require("node:http");

const port = Number(process.env.CATALOGUE_PORT || 18082);
const pricingPort = Number(process.env.PRICING_PORT || 18083);
const accessLog = process.env.ACCESS_LOG
  ? fs.createWriteStream(process.env.ACCESS_LOG, { flags: "a" })
  : process.stdout;
const keptAlive = new http.Agent({ keepAlive: true });

// GET over a connection that is kept for the next call.
function callKeptAlive(path) {
  return new Promise((resolve, reject) => {
    const call = http.get({ host: "127.0.0.1", port: pricingPort, path, agent: keptAlive }, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("end", () => resolve(JSON.parse(Buffer.concat(parts).toString())));
      answer.on("error", reject);
    });
    call.on("error", reject);
  });
}

// One JSON object for each request: when it ended, what it was, how long it took.
function logAccess(request, response, next) {
  const start = process.hrtime.bigint();
  response.on("close", () => {
    const duration = Number(process.hrtime.bigint() - start) / 1e9;
    const entry = {
      time: Date.now() / 1000,
      method: request.method,
      path: request.originalUrl.split("?")[0],
      status: response.statusCode,
      duration: Number(duration.toFixed(6)),
    };
    accessLog.write(JSON.stringify(entry) + "\n");
  });
  next();
}

const app = express();
app.use(logAccess);

app.get("/item/:id", async (request, response) => {
  const price = await callKeptAlive(`/price/${request.params.id}`);
  response.json({ id: request.params.id, title: "A thing", price: price.price });
});

app.get("/title/:id", (request, response) => {
  response.json({ id: request.params.id, title: "A thing" });
});

app.post("/reserve/:id", async (request, response) => {
  const answer = await fetch(`http://127.0.0.1:${pricingPort}/reserve/${request.params.id}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ quantity: 1 }),
  });
  response.status(answer.status).json(await answer.json());
});

app.get("/broken/:id", (request) => {
  throw new Error(`request ${request.params.id} asked for this`);
});

app.use((request, response) => {
  response.status(404).json({ error: "no such item" });
});

const server = app.listen(port, "127.0.0.1", () => console.error(`catalogue listens on 127.0.0.1:${port}`));
// Longer than its clients keep a connection, so that it never closes one just as a client uses it.
server.keepAliveTimeout = 75_000;

// Let the open requests end up in the access log, then leave.
process.on("SIGTERM", () => {
  server.close();
  server.closeAllConnections();
});
