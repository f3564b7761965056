import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.startup.Tomcat;

/** Tomcat on the listener that is standard input: tells its pid. */
class TomcatServer {
    public static void main(String[] arguments) throws Exception {
        byte[] body = ("pid " + ProcessHandle.current().pid() + "\n").getBytes(StandardCharsets.US_ASCII);
        var tomcat = new Tomcat();
        tomcat.setBaseDir(arguments[0]);
        var connector = new Connector("org.apache.coyote.http11.Http11NioProtocol");
        connector.setPort(1);
        connector.setProperty("useInheritedChannel", "true");
        tomcat.setConnector(connector);
        var context = tomcat.addContext("", arguments[0]);
        Tomcat.addServlet(context, "pid", new HttpServlet() {
            @Override
            protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
                response.setContentLength(body.length);
                response.getOutputStream().write(body);
            }
        });
        context.addServletMappingDecoded("/", "pid");
        tomcat.start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                connector.pause();
                connector.getProtocolHandler().closeServerSocketGraceful();
                connector.getProtocolHandler().awaitConnectionsClose(10_000);
                tomcat.stop();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }));
        tomcat.getServer().await();
    }
}
