// A server of HTTP on an inherited descriptor in Deno, which has Node's modules; at SIGTERM it finishes what it
// has in hand.
//
//   deno run --allow-net deno.mjs FD
import { createServer } from 'node:http';
import process from 'node:process';

const body = `pid ${process.pid}\n`;
const server = createServer((_, response) => {
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length }).end(body);
});
server.listen({ fd: Number(process.argv[2]) });
process.on('SIGTERM', () => server.close());
