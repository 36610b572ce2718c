// SPDX-License-Identifier: Apache-2.0

// Command egress counts what leaves an interface, by a number that the applications give
// their packets (SetUint32 and WriteMetadata or SetMetadata): packets and bytes of each
// zone. The TC program is c/account.bpf.c, which bpf2go has compiled (gen.go).
//
//	sockmeta attach -cgroup /sys/fs/cgroup/app.slice &
//	egress -interface eth0 -cgroup /sys/fs/cgroup/app.slice
//
// It needs Linux 6.6, which has TCX: programs of several owners at one interface, each
// there until its link is closed. The program itself runs from 6.1 on. There it is
// attached as a filter of the qdisc clsact, by netlink or by tc, and stays until it is
// removed.
//
// With -demo it brings its own network and applications, as root, also on Linux 6.1:
//
//	go run ./examples/egress -demo
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// keyZone is KEY_ZONE of c/account.bpf.c.
const keyZone = sockmeta.KeyUser

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "egress:", err)
		os.Exit(1)
	}
}

func run() error {
	iface := flag.String("interface", "eth0", "`name` of the interface to count at")
	cgroup := flag.String("cgroup", "", "`directory` of the cgroup that sockmeta is attached to (default this process's)")
	demo := flag.Bool("demo", false, "show what is counted of datagrams between two hosts made for that, and exit")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *demo {
		return runDemo()
	}
	// Whatever policy the one who attached has: this program only reads.
	a, err := bpf.Join(*cgroup)
	if err != nil {
		return err
	}
	defer a.Close()
	objs, err := load(a)
	if err != nil {
		return err
	}
	defer objs.Close()
	l, err := attach(objs.Account, *iface)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("needs Linux 6.6; docs/guide-c.md says what to do on older ones: %w", err)
	}
	if err != nil {
		return err
	}
	defer l.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
		if err := print(os.Stdout, objs.Zones); err != nil {
			return err
		}
	}
}

// load loads the program with the maps of the attachment in the place of its own: what
// the applications sent is there.
func load(a *bpf.Attachment) (*accountObjects, error) {
	maps, err := a.Maps()
	if err != nil {
		return nil, err
	}
	objs := new(accountObjects)
	return objs, loadAccountObjects(objs, &ebpf.CollectionOptions{MapReplacements: maps})
}

// attach has the program see what leaves by an interface, until the link is closed.
func attach(program *ebpf.Program, iface string) (link.Link, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, err
	}
	return link.AttachTCX(link.TCXOptions{Program: program, Interface: ifi.Index, Attach: ebpf.AttachTCXEgress})
}

// count reads the map: the traffic by zone, 0 being none.
func count(zones *ebpf.Map) (map[uint32]accountTraffic, error) {
	counted := make(map[uint32]accountTraffic)
	var zone uint32
	var t accountTraffic
	it := zones.Iterate()
	for it.Next(&zone, &t) {
		counted[zone] = t
	}
	return counted, it.Err()
}

func print(w io.Writer, zones *ebpf.Map) error {
	counted, err := count(zones)
	if err != nil {
		return err
	}
	for zone, t := range counted {
		if _, err := fmt.Fprintf(w, "zone %d: %d packets, %d bytes\n", zone, t.Packets, t.Bytes); err != nil {
			return err
		}
	}
	return nil
}
