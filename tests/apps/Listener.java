import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;

/** An HTTP server on the listener that is standard input: tells its pid. */
class Listener {
    public static void main(String[] arguments) throws Exception {
        String start = System.getenv("START");
        if (start != null) {
            // Goes on at end of file.
            try (var gate = SocketChannel.open(StandardProtocolFamily.UNIX)) {
                gate.connect(UnixDomainSocketAddress.of(start));
                gate.read(ByteBuffer.allocate(1));
            }
        }
        var listener = (ServerSocketChannel) System.inheritedChannel();
        String body = "pid " + ProcessHandle.current().pid() + "\n";
        String answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + body.length() + "\r\n\r\n" + body;
        while (true) {
            try (SocketChannel connection = listener.accept()) {
                connection.read(ByteBuffer.allocate(4096));
                connection.write(ByteBuffer.wrap(answer.getBytes(StandardCharsets.US_ASCII)));
            }
        }
    }
}
