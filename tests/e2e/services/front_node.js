// A Node HTTP/1.1 server that calls others: `front_node.js PORT LOG`; paths as in front_threads.py.
"use strict";

const fs = require("node:fs");
const http = require("node:http");

const [port, log] = [Number(process.argv[2]), process.argv[3]];
const agent = new http.Agent({ keepAlive: true });

function call(target, path) {
  return new Promise((resolve, reject) => {
    http
      .get({ host: "127.0.0.1", port: target, path, agent }, (response) => {
        response.resume();
        response.on("end", () => resolve(response.statusCode));
      })
      .on("error", reject);
  });
}

http
  .createServer(async (request, response) => {
    const [, , ports, ...rest] = request.url.split("/");
    const path = "/" + rest.join("/");
    for (const target of ports.split(",").map(Number)) {
      const result = await call(target, path);
      fs.appendFileSync(log, JSON.stringify({ port: target, path, result }) + "\n");
    }
    response.end("done");
  })
  .listen(port, "127.0.0.1");
