// An HTTP server on inherited descriptors, given by number: tells its pid; at /wait it stops
// half-way until the gate opens. At SIGTERM it finishes what it has in hand.
'use strict';
const http = require('node:http');
const net = require('node:net');

function answer(request, response) {
  const body = `pid ${process.pid}\n`;
  const head = { 'Content-Type': 'text/plain', 'Content-Length': body.length };
  const send = () => response.writeHead(200, head).end(body);
  if (request.url === '/wait') {
    net.connect(process.env.GATE).resume().on('end', send);
  } else {
    send();
  }
}

let servers = [];
function serve() {
  servers = process.argv.slice(2).map((fd) =>
    http.createServer(answer).listen({ fd: Number(fd) }));
}

// Where the tests say, it waits until it may start: it connects, and goes on at end of file.
if (process.env.START) {
  net.connect(process.env.START).resume().on('end', serve);
} else {
  serve();
}

process.on('SIGTERM', () => servers.forEach((server) => server.close()));
