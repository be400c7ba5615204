// Command pod is the only program in the stand-in's two images. Called as
// /pause it holds a pod's namespaces; called as /pod it answers HTTP on $PORT
// (8080 when unset) with its host name and the request, for tests.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	if strings.HasSuffix(os.Args[0], "pod") {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, "pod:", err)
			os.Exit(1)
		}
	} else {
		go reap()
	}
	<-stop
}

// serve speaks just enough HTTP/1.0: net/http would quadruple the file.
func serve() error {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("pod: listening on", l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c)
		}
	}()
	return nil
}

func answer(c net.Conn) {
	defer c.Close()
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		return
	}
	line, _, _ := strings.Cut(string(b[:n]), "\r\n")
	host, _ := os.Hostname()
	body := fmt.Sprintf("pod %s: %s\n", host, line)
	fmt.Fprintf(c, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// reap collects the zombies that a shared process namespace leaves to PID 1.
func reap() {
	child := make(chan os.Signal, 8)
	signal.Notify(child, syscall.SIGCHLD)
	for range child {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err != nil || pid <= 0 {
				break
			}
		}
	}
}
