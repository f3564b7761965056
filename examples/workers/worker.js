// A worker in Node: takes its listeners by name, reports readiness, drains at SIGTERM.
'use strict';
const { once } = require('node:events');
const fs = require('node:fs');
const http = require('node:http');

const { LISTEN_PID, LISTEN_FDNAMES, READY_FD } = process.env;

// Another pid: the variables were meant for a process above this one, such as npm.
if (Number(LISTEN_PID) !== process.pid) {
  throw new Error('no listener was inherited; start it from listend');
}

const answer = (name) => (request, response) => {
  const body = `${name}: hello from pid ${process.pid}\n`;
  response.writeHead(200, { 'Content-Length': body.length }).end(body);
};

// Node calls listen(2) again. Its own backlog of 511 would replace that of the listener; the kernel
// lowers this one to net.core.somaxconn.
const servers = LISTEN_FDNAMES.split(':').map((name, index) => {
  const server = http.createServer(answer(name));
  // A silent client must not hold up the drain. Other timeouts end with close().
  server.setTimeout(10_000);
  return server.listen({ fd: 3 + index, backlog: 65535 });
});

// close() accepts no more and leaves the requests that have begun. With the last of them nothing is
// left to wait for, and Node exits by itself: process.exit() here would cut them off.
process.on('SIGTERM', () => servers.forEach((server) => server.close()));

// Node has no unix datagrams, and so no sd_notify(3) of its own.
Promise.all(servers.map((server) => once(server, 'listening')))
  .then(() => fs.writeSync(Number(READY_FD), '\n'));
