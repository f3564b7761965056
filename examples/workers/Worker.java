import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.Selector;
import java.nio.channels.SelectionKey;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * A worker in Java: takes its listener as standard input, drains at SIGTERM. Java can take no other
 * descriptor, so there is one worker for each listener, and its name is an argument.
 */
class Worker {
    static volatile boolean stopping;

    public static void main(String[] arguments) throws Exception {
        String name = arguments[0];
        if (!(System.inheritedChannel() instanceof ServerSocketChannel listener)) {
            throw new IOException("no listener was inherited; start it from listend with `handoff: fd0`");
        }
        var clients = Executors.newCachedThreadPool();
        var timer = Executors.newSingleThreadScheduledExecutor();
        var selector = Selector.open();
        var worker = Thread.currentThread();
        // A JVM that is asked to stop runs its hooks, and then exits with 143, however well it went.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping = true;
            selector.wakeup();
            try {
                worker.join();
                clients.shutdown();
                clients.awaitTermination(20, TimeUnit.SECONDS);
            } catch (InterruptedException e) {
                Runtime.getRuntime().halt(1);
            }
            Runtime.getRuntime().halt(0);
        }));

        // All instances wake up for a client, and all but one find that it has been taken. A blocking
        // accept would then hang; at SIGTERM it could take one more client and lose it.
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (!stopping) {
            selector.select();
            selector.selectedKeys().clear();
            SocketChannel client = stopping ? null : accept(listener);
            if (client != null) {
                // A silent client must not hold up the drain.
                timer.schedule(() -> close(client), 10, TimeUnit.SECONDS);
                clients.execute(() -> answer(client, name));
            }
        }
        // Those who are in the queue are for other instances; the hook waits for the others.
    }

    static SocketChannel accept(ServerSocketChannel listener) {
        try {
            return listener.accept(); // null: it was taken by another instance
        } catch (IOException e) {
            return null; // it has gone
        }
    }

    static void answer(SocketChannel client, String name) {
        try (client) {
            var lines = new BufferedReader(new InputStreamReader(Channels.newInputStream(client)));
            for (String line; (line = lines.readLine()) != null; ) {
                if (line.isEmpty()) {
                    String body = name + ": hello from pid " + ProcessHandle.current().pid() + "\n";
                    String head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + body.length() + "\r\n\r\n";
                    client.write(ByteBuffer.wrap((head + body).getBytes()));
                    return;
                }
            }
        } catch (IOException e) {
            // The client has gone.
        }
    }

    static void close(SocketChannel client) {
        try {
            client.close();
        } catch (IOException e) {
            // It is closed.
        }
    }
}
