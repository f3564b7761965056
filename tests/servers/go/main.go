// Servers of Go on an inherited listener, in the way that is named: each tells its process id. At SIGTERM it
// finishes what it has in hand.
//
//	server WAY
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/activation"
	"github.com/gin-gonic/gin"
	"github.com/gliderlabs/ssh"
	"github.com/go-chi/chi"
	"github.com/gorilla/mux"
	"github.com/labstack/echo"
	"github.com/miekg/dns"
	"github.com/valyala/fasthttp"
	"google.golang.org/grpc"
)

func body() string { return fmt.Sprintf("pid %d\n", os.Getpid()) }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Of an http.Handler, at each listener.
func serve(handler http.Handler, certificate ...string) {
	listeners, err := activation.Listeners()
	check(err)
	server := &http.Server{Handler: handler}
	ended := make(chan error, len(listeners))
	for _, listener := range listeners {
		go func(listener net.Listener) {
			if len(certificate) == 2 {
				ended <- server.ServeTLS(listener, certificate[0], certificate[1])
			} else {
				ended <- server.Serve(listener)
			}
		}(listener)
	}
	wait(ended)
	context, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	check(server.Shutdown(context))
}

// Until SIGTERM.
func wait(ended <-chan error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	select {
	case err := <-ended:
		log.Fatal(err)
	case <-signals:
	}
}

func plain(writer http.ResponseWriter, _ *http.Request) {
	writer.Header().Set("Content-Length", strconv.Itoa(len(body())))
	fmt.Fprint(writer, body())
}

// Of something with Serve and Shutdown of its own, at each listener.
func own(serve func(net.Listener) error, shutdown func() error) {
	listeners, err := activation.Listeners()
	check(err)
	ended := make(chan error, len(listeners))
	for _, listener := range listeners {
		go func(listener net.Listener) { ended <- serve(listener) }(listener)
	}
	wait(ended)
	check(shutdown())
}

func useDNS() {
	answer := dns.HandlerFunc(func(writer dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg)
		reply.SetReply(query)
		record, _ := dns.NewRR("example.test. 60 A 192.0.2.1")
		reply.Answer = []dns.RR{record}
		writer.WriteMsg(reply)
	})
	var servers []*dns.Server
	ended := make(chan error, 2)
	for _, file := range activation.Files(true) {
		server := &dns.Server{Handler: answer}
		if packets, err := net.FilePacketConn(file); err == nil {
			server.PacketConn = packets
		} else {
			listener, err := net.FileListener(file)
			check(err)
			server.Listener = listener
		}
		servers = append(servers, server)
		go func() { ended <- server.ActivateAndServe() }()
	}
	wait(ended)
	for _, server := range servers {
		check(server.Shutdown())
	}
}

func main() {
	log.SetFlags(0)
	switch way := os.Args[1]; way {
	case "http":
		serve(http.HandlerFunc(plain))
	case "https":
		serve(http.HandlerFunc(plain), "cert.pem", "key.pem")
	case "gin":
		gin.SetMode(gin.ReleaseMode)
		app := gin.New()
		app.GET("/", func(c *gin.Context) { c.String(200, body()) })
		serve(app)
	case "echo":
		app := echo.New()
		app.GET("/", func(c echo.Context) error { return c.String(200, body()) })
		serve(app)
	case "chi":
		app := chi.NewRouter()
		app.Get("/", plain)
		serve(app)
	case "mux":
		app := mux.NewRouter()
		app.HandleFunc("/", plain)
		serve(app)
	case "grpc":
		server := grpc.NewServer()
		own(server.Serve, func() error { server.GracefulStop(); return nil })
	case "ssh":
		server := &ssh.Server{Handler: func(ssh.Session) {}}
		own(server.Serve, func() error {
			context, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			return server.Shutdown(context)
		})
	case "fasthttp":
		server := &fasthttp.Server{Handler: func(c *fasthttp.RequestCtx) { c.WriteString(body()) }}
		own(server.Serve, server.Shutdown)
	case "fcgi":
		own(func(listener net.Listener) error { return fcgi.Serve(listener, http.HandlerFunc(plain)) },
			func() error { return nil })
	case "dns":
		useDNS()
	default:
		log.Fatalf("no way %q", way)
	}
}
