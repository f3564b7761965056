// An HTTP server on the listener at descriptor 3 (LISTEN_FDS).
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/", func(to http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(to, "hello")
	})
	log.Fatal(http.Serve(listener, nil))
}
