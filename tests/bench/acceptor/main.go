// SPDX-License-Identifier: Apache-2.0

// Acceptor is the server of the bench's tcp-accept case: one program, so that what
// is compared differs in nothing but where a connection's metadata comes from.
//
//	acceptor -kind plain|sockmeta|proxy -service ID
//
// It serves the listening socket that it has as file descriptor 3, until its
// standard input ends. From each connection it reads one byte, answers with one
// that says whether the connection's service id is the given one, and closes it.
//
// It is a module of its own because the library depends on no implementation of the
// PROXY protocol.
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/pires/go-proxyproto"

	"github.com/sockmeta/sockmeta-go/conn"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// listenerFD is the first of what os/exec passes on.
const listenerFD = 3

// typeService is the TLV with the service id, big endian, in PROXY headers: the
// first that the protocol leaves to applications.
const typeService proxyproto.PP2Type = 0xE0

// What a connection is answered.
const (
	accepted = 'y'
	refused  = 'n'
)

func main() {
	kind := flag.String("kind", "plain", "where the metadata comes from: plain (there is none), sockmeta or proxy")
	service := flag.Uint("service", 0, "the service id that connections should have")
	flag.Parse()
	l, err := net.FileListener(os.NewFile(listenerFD, "listener"))
	if err == nil {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			_ = l.Close()
		}()
		err = serve(*kind, l, uint32(*service))
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		fmt.Fprintln(os.Stderr, "acceptor:", err)
		os.Exit(1)
	}
}

// serve serves connections until the listener is closed.
func serve(kind string, l net.Listener, service uint32) error {
	known, l, err := wrap(kind, l)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go answer(c, known, service)
	}
}

// wrap returns a listener of the kind on another, and how its connections know
// their service id.
func wrap(kind string, l net.Listener) (known func(c net.Conn, want uint32) bool, _ net.Listener, err error) {
	switch kind {
	case "plain":
		return func(net.Conn, uint32) bool { return true }, l, nil
	case "sockmeta":
		return bySockmeta, conn.NewTCPListener(l.(*net.TCPListener)), nil
	case "proxy":
		return byHeader, &proxyproto.Listener{Listener: l}, nil
	}
	return nil, nil, fmt.Errorf("kind %q: want plain, sockmeta or proxy", kind)
}

func bySockmeta(c net.Conn, want uint32) bool {
	md, err := c.(*sockmeta.TCPConn).OpeningMetadata()
	if err != nil {
		return false
	}
	id, ok := md.Uint32(sockmeta.KeyServiceID)
	return ok && id == want
}

func byHeader(c net.Conn, want uint32) bool {
	header := c.(*proxyproto.Conn).ProxyHeader()
	if header == nil {
		return false
	}
	tlvs, err := header.TLVs()
	if err != nil {
		return false
	}
	for _, tlv := range tlvs {
		if tlv.Type == typeService && len(tlv.Value) == 4 {
			return binary.BigEndian.Uint32(tlv.Value) == want
		}
	}
	return false
}

func answer(c net.Conn, known func(net.Conn, uint32) bool, service uint32) {
	defer c.Close()
	reply := [1]byte{refused}
	if known(c, service) {
		reply[0] = accepted
	}
	// A client that goes away has only itself to answer to.
	var request [1]byte
	if _, err := io.ReadFull(c, request[:]); err == nil {
		_, _ = c.Write(reply[:])
	}
}
