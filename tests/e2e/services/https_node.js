// A Node HTTPS/1.1 server that passes each request on by HTTPS: `https_node.js PORT FOLDER LOG BACKEND_PORT`.
"use strict";

const fs = require("node:fs");
const https = require("node:https");

const [port, folder, log, backend] = process.argv.slice(2);
const certificate = fs.readFileSync(`${folder}/cert.pem`);
const patient = { keepAliveTimeout: 600_000 };
const agent = new https.Agent({ keepAlive: true, ca: certificate });

https
  .createServer({ cert: certificate, key: fs.readFileSync(`${folder}/key.pem`), ...patient }, (request, response) => {
    request.resume();
    request.on("end", () => {
      const options = { host: "localhost", port: backend, path: request.url, agent };
      const entry = { path: request.url.split("?")[0], peer: request.socket.remotePort };
      const call = https.get(options, (answer) => {
        const port = call.socket.localPort;
        fs.appendFileSync(log, JSON.stringify({ ...entry, port }) + "\n");
        response.writeHead(answer.statusCode, { "Content-Length": answer.headers["content-length"] });
        answer.pipe(response);
      });
    });
  })
  .listen(Number(port), "127.0.0.1", 1024);
