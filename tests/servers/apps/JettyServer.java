import java.io.IOException;
import java.nio.charset.StandardCharsets;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.handler.AbstractHandler;
import org.eclipse.jetty.server.handler.StatisticsHandler;

/** Jetty on the listener that is standard input: tells its pid. */
class JettyServer {
    public static void main(String[] arguments) throws Exception {
        byte[] body = ("pid " + ProcessHandle.current().pid() + "\n").getBytes(StandardCharsets.US_ASCII);
        var server = new Server();
        var connector = new ServerConnector(server);
        connector.setInheritChannel(true);
        server.addConnector(connector);
        // It is with this handler that a stop waits for requests.
        var statistics = new StatisticsHandler();
        statistics.setHandler(new AbstractHandler() {
            @Override
            public void handle(String path, Request base, HttpServletRequest request, HttpServletResponse response)
                    throws IOException {
                base.setHandled(true);
                response.setContentLength(body.length);
                response.getOutputStream().write(body);
            }
        });
        server.setHandler(statistics);
        server.setStopTimeout(10_000);
        server.setStopAtShutdown(true);
        server.start();
        server.join();
    }
}
