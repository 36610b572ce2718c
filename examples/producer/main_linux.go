// SPDX-License-Identifier: Apache-2.0

// Command producer attaches an XDP program that gives packets a value under a key of its
// own, the Ethernet address that they came from, and receives datagrams with it. The
// program is c/source.bpf.c, which bpf2go has compiled (gen.go).
//
//	producer -interface eth0 -listen :7777
//
// With -demo it brings its own network and client, as root:
//
//	go run ./examples/producer -demo
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/cilium/ebpf/link"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// keySource is KEY_SOURCE of c/source.bpf.c.
const keySource = sockmeta.KeyUser

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "producer:", err)
		os.Exit(1)
	}
}

func run() error {
	iface := flag.String("interface", "eth0", "`name` of the interface whose packets get the value")
	addr := flag.String("listen", ":7777", "`address` to receive on")
	demo := flag.Bool("demo", false, "show what happens to datagrams between two hosts made for that, and exit")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *demo {
		return runDemo()
	}
	p, err := attach(*iface)
	if err != nil {
		return err
	}
	defer p.Close()
	laddr, err := net.ResolveUDPAddr("udp", *addr)
	if err != nil {
		return err
	}
	c, err := sockmeta.ListenUDP("udp", laddr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	slog.Info("receiving", "addr", c.LocalAddr(), "metadata", c.Support())
	err = receive(c, func(from netip.AddrPort, source net.HardwareAddr, err error) {
		slog.Info("datagram", "from", from, "source", source, "err", err)
	})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// attach attaches the program to an interface, in the driver where that can, until the
// link is closed.
func attach(iface string) (link.Link, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, err
	}
	spec, err := loadSource()
	if err != nil {
		return nil, err
	}
	// Without the host's secret, receivers see the values flagged as anybody's.
	if err := bpf.PrepareProducer(spec); err != nil {
		return nil, err
	}
	var objs sourceObjects
	if err := spec.LoadAndAssign(&objs, nil); err != nil {
		return nil, err
	}
	// The link keeps the program.
	defer objs.Close()
	l, err := link.AttachXDP(link.XDPOptions{Program: objs.PutSource, Interface: ifi.Index, Flags: link.XDPDriverMode})
	if err != nil {
		l, err = link.AttachXDP(link.XDPOptions{Program: objs.PutSource, Interface: ifi.Index, Flags: link.XDPGenericMode})
	}
	return l, err
}

var errNoSource = errors.New("no program put the source address")

// receive hands each datagram's sender and source address to handle, or why there is
// none. It returns what ended it.
func receive(c *sockmeta.UDPConn, handle func(from netip.AddrPort, source net.HardwareAddr, err error)) error {
	buf := make([]byte, 1<<16)
	var md sockmeta.Metadata
	for {
		_, from, err := c.ReadMetadata(buf, &md)
		// A datagram without metadata is a datagram all the same.
		if err != nil && !sockmeta.IsMetadataError(err) {
			return err
		}
		source, ok := md.Bytes(keySource)
		switch {
		case err != nil:
		case !ok:
			err = errNoSource
		case md.Flags()&cmsg.FlagUnanchored != 0:
			// A remote host may have made it up.
			source, err = nil, errNoSource
		}
		handle(from, source, err)
	}
}
