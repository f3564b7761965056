<?php
// A worker in PHP: takes its listeners by name, reports readiness, drains at SIGTERM. It needs the
// extension pcntl, which Debian's php-cli has.
declare(strict_types=1);

// Another pid: the variables were meant for a process above this one.
if (getenv('LISTEN_PID') !== (string) getmypid()) {
    fwrite(STDERR, "no listener was inherited; start it from listend\n");
    exit(1);
}
$worker = getmypid();

$stopping = false;
pcntl_async_signals(true);
pcntl_signal(SIGTERM, function () use (&$stopping): void {
    $stopping = true;
});
// Nobody has to reap the children; pcntl_wait() still waits for them.
pcntl_signal(SIGCHLD, SIG_IGN);

// By number, since a name may come twice: `localhost:8080` is two sockets.
$names = explode(':', getenv('LISTEN_FDNAMES'));
$listeners = [];
foreach ($names as $i => $_) {
    // A descriptor that is a socket becomes a stream like that of stream_socket_server().
    $listeners[$i] = fopen('php://fd/' . (3 + $i), 'r+');
    // All instances wake up for a client, and all but one find that it has been taken. A blocking
    // accept would then wait for the next one, and serve no other listener.
    stream_set_blocking($listeners[$i], false);
}
notify('READY=1');

while (!$stopping) {
    $ready = $listeners;
    $none = null;
    // With a timeout: PHP runs a handler only between two operations, so a signal just before
    // stream_select() would be noticed with the next client. False: a signal came.
    if (!@stream_select($ready, $none, $none, 1)) {
        continue;
    }
    foreach ($ready as $i => $listener) {
        $client = @stream_socket_accept($listener, 0);
        if (!$client) {
            continue; // taken by another instance, or gone
        }
        while (($child = @pcntl_fork()) < 0) {
            sleep(1); // until there can be one more process
        }
        if ($child === 0) {
            answer($client, $names[$i], $worker);
            exit(0);
        }
        fclose($client);
    }
}
// Those who are in the queue are for other instances.
while (pcntl_wait($status) > 0) {
}

function notify(string $state): void
{
    if ($path = getenv('NOTIFY_SOCKET')) {
        fwrite(stream_socket_client('udg://' . preg_replace('/^@/', "\0", $path)), $state);
    }
}

function answer($client, string $name, int $worker): void
{
    pcntl_signal(SIGTERM, SIG_IGN); // or it would interrupt what is read
    pcntl_alarm(10); // a silent client must not hold up the drain
    while (($line = fgets($client)) !== false) {
        if ($line === "\r\n") {
            $body = "$name: hello from pid $worker\n";
            $size = strlen($body);
            fwrite($client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: $size\r\n\r\n$body");
            return;
        }
    }
}
