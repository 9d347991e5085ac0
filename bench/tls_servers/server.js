// An HTTPS/1.1 server whose every answer has 1 kB: `server.js PORT FOLDER`; FOLDER holds cert.pem and key.pem.
"use strict";

const fs = require("node:fs");
const https = require("node:https");

const [port, folder] = process.argv.slice(2);
const body = "x".repeat(1024);

https
  .createServer(
    { cert: fs.readFileSync(`${folder}/cert.pem`), key: fs.readFileSync(`${folder}/key.pem`) },
    (request, response) => {
      response.writeHead(200, { "Content-Length": body.length });
      response.end(body);
    },
  )
  .listen(Number(port), "127.0.0.1");
