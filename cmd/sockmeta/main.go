// SPDX-License-Identifier: Apache-2.0

// Sockmeta attaches sockmeta's programs for applications that have no privilege
// to do it, says what this host can do, and has the headers for programs in C.
//
//	sockmeta status
//	sockmeta attach [-cgroup DIR] [-join] [-slots N] [-tracing]
//	                [-producer IFACE [-service PORT=ID]...]
//	                [-mark-mask BITS] [-max-priority N] [-no-launch-times]
//	                [-max-sockets N] [-max-sockets-per-user N]
//	                [-local-key KEY... [-local IFACE]...] [-pin DIR]
//	                [-grant [USER][:GROUP]=PATH]...
//	sockmeta headers DIR
//
// Attach keeps the programs attached to a cgroup, its own by default, until it
// is told to stop by SIGINT or SIGTERM, or dies. Applications in the cgroup and
// below then have metadata without any capability. It needs CAP_BPF,
// CAP_NET_ADMIN and CAP_PERFMON. Sockets that opted in work on as plain ones
// after it has ended.
//
// Where another process has attached the programs already, attach shares them if they
// have the same options, and else fails and names what differs. With -join it takes
// them as they are.
//
// What applications may ask for with what they send is up to -mark-mask,
// -max-priority and -no-launch-times. The values of the keys -local-key, numbers
// or names as in trace_id, reach receivers on this host through the interfaces
// -local: lo, or both ends of a veth pair. What became of the metadata that was
// sent is printed at the end, and on SIGUSR1. With -pin other programs find the
// maps that they read it by (bpf/include/sockmeta_tx.h), on a bpffs.
//
// The kernel charges what it keeps at sockets to the memory cgroup of attach: so no
// more than -max-sockets have metadata at once, and -max-sockets-per-user of one
// user. Others are plain sockets, and how often that happened is printed, too.
//
// Applications ask the kernel for each record. Those of a user or a group that
// -grant names read them from memory, where they name the path, too
// (ListenConfig.ReceiveMap): they see the metadata of all sockets in the cgroup, each
// other's and everybody's. The path is on a bpffs that they can get to; most hosts'
// /sys/fs/bpf is root's alone.
//
// Headers writes the C headers of this version to a directory, for a compiler's -I. It
// makes the directory where there is none, and replaces headers that are there.
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
	"strings"
	"syscall"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/bpf/include"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const usage = `usage: sockmeta status
       sockmeta attach [-cgroup DIR] [-join] [-slots N] [-tracing]
                       [-producer IFACE [-service PORT=ID]...]
                       [-mark-mask BITS] [-max-priority N] [-no-launch-times]
                       [-max-sockets N] [-max-sockets-per-user N]
                       [-local-key KEY... [-local IFACE]...] [-pin DIR]
                       [-grant [USER][:GROUP]=PATH]...
       sockmeta headers DIR
`

// errUsage ends the program with exit code 2.
var errUsage = errors.New(strings.TrimSuffix(usage, "\n"))

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout); {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "sockmeta:", strings.TrimPrefix(err.Error(), "sockmeta: "))
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	switch args[0] {
	case "status":
		return status(out)
	case "attach":
		return attach(ctx, args[1:], out)
	case "headers":
		if len(args) == 2 {
			return include.WriteDir(args[1])
		}
	}
	return errUsage
}

// isAttached says whether sockets of this process find somebody who has attached.
func isAttached() (bool, error) {
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		return false, err
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return false, err
	}
	var ask error
	err = raw.Control(func(fd uintptr) { ask = bpf.AskSocket(int(fd), 0) })
	return !errors.Is(ask, bpf.ErrNotSupported), err
}

// status makes a socket of each kind, as an application in this cgroup would, and
// says what keeps them from better tiers.
func status(out io.Writer) error {
	attached, err := isAttached()
	if err != nil {
		return err
	}
	u, err := sockmeta.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	defer u.Close()
	l, err := sockmeta.ListenTCP("tcp", nil)
	if err != nil {
		return err
	}
	defer l.Close()
	if !attached {
		fmt.Fprintln(out, "nobody has attached the programs to this process's cgroup, or to one above; what follows is what sockets get that attach them themselves")
	}
	udp := u.Support()
	fmt.Fprintf(out, "udp: %v\ntcp: %v\n", udp, l.Support())
	if udp.Err() != nil {
		return nil // it has been said
	}
	for _, m := range udp.Missing {
		fmt.Fprintf(out, "no %v: %v\n", m.Tier, m.Err)
	}
	return nil
}
