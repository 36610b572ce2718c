// SPDX-License-Identifier: Apache-2.0

package sockmeta_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// The examples run with and without privileges, and print the same.

func ExampleListenUDP() {
	c, err := sockmeta.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Support().Err(); err != nil {
		log.Print("going on without metadata: ", err)
	}
	sendTo(c.LocalAddr(), "hello")

	// Code that knows nothing of metadata reads as ever.
	buf := make([]byte, 1500)
	n, _, err := c.ReadFromUDP(buf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", buf[:n])

	// Who wants it asks for the last datagram's.
	md, err := c.Metadata()
	switch {
	case err == nil:
		if service, ok := md.Uint32(sockmeta.KeyServiceID); ok {
			log.Print("for service ", service)
		}
	case sockmeta.IsMetadataError(err):
		// There is none; the payload is there.
	default:
		log.Fatal(err)
	}
	// Output: hello
}

func ExampleUDPConn_ReadMetadata() {
	c, err := sockmeta.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	go func() {
		for _, payload := range []string{"one", "two", "three"} {
			sendTo(c.LocalAddr(), payload)
		}
	}()

	buf := make([]byte, 1500)
	var md sockmeta.Metadata // used again for each datagram
	for range 3 {
		n, from, err := c.ReadMetadata(buf, &md)
		if err != nil && !sockmeta.IsMetadataError(err) {
			log.Fatal(err)
		}
		// Where the metadata is missing md is empty, and the rest is there.
		fmt.Printf("%s from %v\n", buf[:n], from.Addr().Unmap())
		if id, ok := md.Uint64(sockmeta.KeyPacketID); ok {
			log.Print("packet ", id)
		}
	}
	// Output:
	// one from 127.0.0.1
	// two from 127.0.0.1
	// three from 127.0.0.1
}

func ExampleUDPConn_WriteMetadata() {
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	c, err := sockmeta.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	// Programs on the datagram's way through this host read the value, and its
	// priority becomes 5.
	var md sockmeta.Metadata
	if err := md.SetUint32(sockmeta.KeyServiceID, 7); err != nil {
		log.Fatal(err)
	}
	md.SetPriority(5)
	_, err = c.WriteMetadata([]byte("hello"), &md, server.LocalAddr().(*net.UDPAddr).AddrPort())
	switch {
	case err == nil:
	case errors.Is(err, sockmeta.ErrRefused):
		// The policy does not allow priority 5 here; the rest went along.
	case sockmeta.IsMetadataError(err):
		// Sent without metadata.
	default:
		log.Fatal(err)
	}

	buf := make([]byte, 1500)
	n, err := server.Read(buf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", buf[:n])
	// Output: hello
}

func ExampleUDPConn_Support() {
	c, err := sockmeta.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	s := c.Support()
	if err := s.Err(); err != nil {
		// Says what is missing, and what would mend it.
		fmt.Println(errors.Is(err, sockmeta.ErrNotSupported))
		return
	}
	fmt.Println(s.Tier > sockmeta.TierNone)
	// Output: true
}

func ExampleListenConfig() {
	// Better none than one without metadata.
	lc := sockmeta.ListenConfig{Require: true}
	c, err := lc.ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if errors.Is(err, sockmeta.ErrNotSupported) {
		// The error says what is missing. Here we go on without.
		lc.Require = false
		c, err = lc.ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	}
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	sendTo(c.LocalAddr(), "hello")

	buf := make([]byte, 1500)
	var md sockmeta.Metadata
	n, _, err := c.(*sockmeta.UDPConn).ReadMetadata(buf, &md)
	fmt.Printf("%s, %v\n", buf[:n], err == nil || sockmeta.IsMetadataError(err))
	// Output: hello, true
}

func ExampleDialer() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "hello")
	}()

	d := sockmeta.Dialer{Dialer: net.Dialer{FallbackDelay: -1}}
	c, err := d.DialContext(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 5)
	if _, err := io.ReadFull(c, buf); err != nil {
		log.Fatal(err)
	}
	// Of the segment that brought these bytes.
	_, err = c.(*sockmeta.TCPConn).Metadata()
	fmt.Printf("%s, %v\n", buf, err == nil || sockmeta.IsMetadataError(err))
	// Output: hello, true
}

func ExampleDialer_metadata() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()

	// All packets of the connection have it, the first one, too.
	var md sockmeta.Metadata
	if err := md.SetUint32(sockmeta.KeyServiceID, 7); err != nil {
		log.Fatal(err)
	}
	d := sockmeta.Dialer{Metadata: &md}
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		log.Fatal(err)
	}

	// From here on they have none.
	err = c.(*sockmeta.TCPConn).SetMetadata(nil)
	if err != nil && !errors.Is(err, sockmeta.ErrNotSupported) {
		log.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(c, buf); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", buf)
	// Output: hello
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// A web server's handlers get at the connection, and its metadata, by the
// request's context.
func Example_http() {
	l, err := sockmeta.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := sockmeta.FromConn(c); ok {
				return context.WithValue(ctx, connKey{}, t)
			}
			return ctx
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := r.Context().Value(connKey{}).(*sockmeta.TCPConn)
			// What the packet that opened the connection knew: which
			// service the load balancer chose, for one.
			md, err := c.OpeningMetadata()
			if err != nil && !sockmeta.IsMetadataError(err) {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			if service, ok := md.Uint32(sockmeta.KeyServiceID); ok {
				log.Print("for service ", service)
			}
			fmt.Fprint(w, "hello")
		}),
	}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()

	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.StatusCode, string(body))
	// Output: 200 hello
}

// sendTo sends one datagram.
func sendTo(addr net.Addr, payload string) {
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, payload); err != nil {
		log.Fatal(err)
	}
}
