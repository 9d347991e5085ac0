// HTTPS through a proxy that speaks TLS itself, all tunnels at once, once the file GO exists:
// `tunnel_node.js PROXY_PORT PORT FOLDER TUNNELS GO`.
"use strict";

const fs = require("node:fs");
const https = require("node:https");
const tls = require("node:tls");

const [proxy, port, folder, tunnels, go] = process.argv.slice(2);
const ca = fs.readFileSync(`${folder}/cert.pem`);

function ask(agent, path, next) {
  https.get({ host: "localhost", port, path, agent }, (answer) => answer.resume().on("end", next));
}

function through(tunnel) {
  const target = `localhost:${port}`;
  https
    .request({ host: "localhost", port: proxy, method: "CONNECT", path: target, ca, agent: false })
    .on("connect", (_, socket) => {
      const inner = tls.connect({ socket, ca, servername: "localhost" });
      const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
      agent.createConnection = () => inner;
      ask(agent, `/through/${tunnel}/1`, () => ask(agent, `/through/${tunnel}/20000`, () => agent.destroy()));
    })
    .end();
}

const look = setInterval(() => {
  if (fs.existsSync(go)) {
    clearInterval(look);
    for (let tunnel = 0; tunnel < Number(tunnels); tunnel++) {
      through(tunnel);
    }
  }
}, 20);
