// Servers of Node on an inherited descriptor, in the way that is named. Each tells its pid, or greets as
// its protocol has it; at SIGTERM it finishes what it has in hand.
//
//   node.js WAY FD
'use strict';
const [way, fd] = [process.argv[2], Number(process.argv[3])];
const body = `pid ${process.pid}\n`;

/** Of a server with listen() and close(), as net.Server has them. */
function run(server) {
  server.listen({ fd });
  process.on('SIGTERM', () => server.close());
  return server;
}

/** The same, of one that leaves timers behind. */
function runAndExit(server) {
  return run(server).on('close', () => process.exit(0));
}

/** Of a handler of node:http. */
const http = (handler) => run(require('node:http').createServer(handler));

const plain = (_, response) => {
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length }).end(body);
};

const ways = {
  net: () => run(require('node:net').createServer((socket) => {
    socket.on('error', () => {}).end(body);
  })),
  http2: () => run(require('node:http2').createServer()),
  cluster() {
    const cluster = require('node:cluster');
    if (cluster.isPrimary) {
      const workers = [cluster.fork(), cluster.fork()];
      process.on('SIGTERM', () => workers.forEach((worker) => worker.disconnect()));
    } else {
      process.on('SIGTERM', () => {});
      require('node:http').createServer(plain).listen({ fd });
    }
  },
  dgram() {
    const socket = require('node:dgram').createSocket('udp4');
    socket.on('message', (text, client) => socket.send(`pid ${text}`, client.port, client.address));
    socket.bind({ fd });
    process.on('SIGTERM', () => socket.close());
  },
  express() {
    const app = require('express')();
    app.get('/', (_, response) => response.type('text').send(body));
    http(app);
  },
  connect: () => http(require('connect')().use(plain)),
  koa() {
    const Koa = require('koa');
    http(new Koa().use((context) => { context.body = body; }).callback());
  },
  async fastify() {
    // Its own listen() looks for the name of an interface, and takes no descriptor.
    const app = require('fastify')();
    app.get('/', async () => body);
    await app.ready();
    run(app.server);
  },
  restify() {
    const server = require('restify').createServer();
    server.get('/', (_, response, next) => {
      response.setHeader('Content-Length', body.length);
      response.sendRaw(200, body);
      next();
    });
    run(server);
  },
  polka() {
    const app = require('polka')().get('/', plain);
    http(app.handler.bind(app));
  },
  async hapi() {
    const listener = require('node:http').createServer();
    const server = require('@hapi/hapi').server({ listener, autoListen: false });
    server.route({ method: 'GET', path: '/', handler: () => body });
    await server.initialize();
    run(listener);
  },
  h3() {
    const { H3, toNodeHandler } = require('h3');
    http(toNodeHandler(new H3().get('/', () => body)));
  },
  micro: () => http(require('micro').serve((_, response) => plain(_, response))),
  restana() {
    const app = require('restana')();
    app.get('/', plain);
    run(app.getServer ? app.getServer() : app);
  },
  jayson() {
    const methods = { pid: (_, done) => done(null, process.pid) };
    run(new (require('jayson').Server)(methods).tcp());
  },
  yoga() {
    const { createSchema, createYoga } = require('graphql-yoga');
    const schema = createSchema({
      typeDefs: 'type Query { pid: Int }',
      resolvers: { Query: { pid: () => process.pid } },
    });
    http(createYoga({ schema, logging: false }));
  },
  ldapjs() {
    const server = require('ldapjs').createServer();
    server.bind('', (_, response, next) => { response.end(); return next(); });
    // Its own listenFD() calls what no version of Node has.
    run(server.server);
  },
  https() {
    const read = (name) => require('node:fs').readFileSync(name);
    run(require('node:https').createServer({ cert: read('cert.pem'), key: read('key.pem') }, plain));
  },
  hono() {
    const { Hono } = require('hono');
    const app = new Hono().get('/', (context) => context.text(body));
    run(require('@hono/node-server').createAdaptorServer({ fetch: app.fetch }));
  },
  ws() {
    const server = http(plain);
    new (require('ws').WebSocketServer)({ server }).on('connection', (socket) => socket.on('error', () => {}));
  },
  socketio() {
    const server = require('node:http').createServer(plain);
    new (require('socket.io').Server)(server);
    runAndExit(server);
  },
  smtp() {
    const { SMTPServer } = require('smtp-server');
    const server = new SMTPServer({ disableReverseLookup: true, disabledCommands: ['STARTTLS', 'AUTH'] });
    server.on('error', () => {});
    runAndExit(server.server);
  },
  ssh2() {
    const { Server } = require('ssh2');
    // Of the keys that its own generator makes, one in a hundred is none.
    const { privateKey: key } = require('crypto').generateKeyPairSync('ec', {
      namedCurve: 'prime256v1',
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'sec1', format: 'pem' },
    });
    const server = new Server({ hostKeys: [key] }, (client) => client.on('error', () => {}));
    server.listen({ fd });
    process.on('SIGTERM', () => server.close(() => process.exit(0)));
  },
  async aedes() {
    const module = require('aedes');
    const broker = module.Aedes.createBroker ? await module.Aedes.createBroker() : module();
    runAndExit(require('node:net').createServer(broker.handle));
  },
};

ways[way]();
