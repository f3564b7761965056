// A worker in Go: takes its listeners by name, reports readiness, drains at SIGTERM.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type listener struct {
	net.Listener
	name string
}

func inherited() (all []listener) {
	// Another pid: the variables were meant for a process above this one.
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		log.Fatal("no listener was inherited; start it from listend")
	}
	// A name may come twice: `localhost:8080` is two sockets.
	for i, name := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
		file := os.NewFile(uintptr(3+i), name)
		l, err := net.FileListener(file) // a copy, and nonblocking
		if err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		file.Close()
		all = append(all, listener{l, name})
	}
	return all
}

func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.Dial("unixgram", path) // an abstract name, too
	if err == nil {
		_, err = conn.Write([]byte(state))
	}
	if err != nil {
		log.Print(err)
	}
}

func main() {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()

	var drained sync.WaitGroup
	for _, l := range inherited() {
		l := l
		server := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "%s: hello from pid %d\n", l.name, os.Getpid())
			}),
			ReadTimeout: 10 * time.Second, // a silent client must not hold up the drain
		}
		go func() {
			if err := server.Serve(l); err != http.ErrServerClosed {
				log.Fatalf("%s: %v", l.name, err)
			}
		}()
		drained.Add(1)
		go func() {
			defer drained.Done()
			<-stop.Done()
			// It closes the listener of this process only: those who are in the queue are for
			// other instances.
			if err := server.Shutdown(context.Background()); err != nil {
				log.Printf("%s: %v", l.name, err)
			}
		}()
	}
	notify("READY=1")
	// Not for Serve, which returns when Shutdown has only begun.
	drained.Wait()
}
