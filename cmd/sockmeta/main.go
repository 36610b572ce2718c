// SPDX-License-Identifier: Apache-2.0

// Sockmeta attaches sockmeta's programs for applications that have no privilege
// to do it, and says what this host can do.
//
//	sockmeta status
//	sockmeta attach [-cgroup DIR] [-slots N] [-producer IFACE [-service PORT=ID]...]
//
// Attach keeps the programs attached to a cgroup, its own by default, until it
// is told to stop by SIGINT or SIGTERM, or dies. Applications in the cgroup and
// below then have metadata without any capability. It needs CAP_BPF,
// CAP_NET_ADMIN and CAP_PERFMON. Sockets that opted in work on as plain ones
// after it has ended.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const usage = `usage: sockmeta status
       sockmeta attach [-cgroup DIR] [-slots N] [-producer IFACE [-service PORT=ID]...]
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
	}
	return errUsage
}

// status makes a socket of each kind, as an application in this cgroup would.
func status(out io.Writer) error {
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
	fmt.Fprintf(out, "udp: %v\ntcp: %v\n", u.Support(), l.Support())
	return nil
}

// services is the flag -service.
type services map[uint16]uint32

func (s services) String() string { return "" }

func (s services) Set(v string) error {
	p, i, ok := strings.Cut(v, "=")
	port, err := strconv.ParseUint(p, 10, 16)
	if !ok || err != nil {
		return errors.New("want PORT=ID")
	}
	id, err := strconv.ParseUint(i, 0, 32)
	if err != nil {
		return errors.New("want PORT=ID")
	}
	s[uint16(port)] = uint32(id)
	return nil
}

func attach(ctx context.Context, args []string, out io.Writer) error {
	var opts bpf.Options
	var iface string
	ids := make(services)
	flags := flag.NewFlagSet("attach", flag.ContinueOnError)
	flags.StringVar(&opts.Cgroup, "cgroup", "", "`directory` of a cgroup v2 (default: this process's)")
	flags.IntVar(&opts.SlotsPerCPU, "slots", 0, "received packets to remember for each CPU, a power of two (default: 4096)")
	flags.StringVar(&iface, "producer", "", "`interface` whose packets get a packet id, time and service id")
	flags.Var(ids, "service", "`PORT=ID`: service id of packets to a port; may be repeated")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 0 || iface == "" && len(ids) != 0 {
		return errUsage
	}

	a, err := bpf.Attach(opts)
	if err != nil {
		return err
	}
	defer a.Close()
	shared := ""
	if a.Shared() {
		shared = ", shared with another process"
	}
	fmt.Fprintf(out, "attached to %s: %d slots%s\n", a.Cgroup(), a.Info().Slots, shared)
	if iface != "" {
		p, err := bpf.AttachProducer(iface, bpf.ProducerOptions{Services: ids})
		if err != nil {
			return err
		}
		defer p.Close()
		mode := "driver"
		if p.Generic() {
			mode = "generic"
		}
		fmt.Fprintf(out, "producer on %s: %s XDP\n", iface, mode)
	}
	<-ctx.Done()
	return nil
}
