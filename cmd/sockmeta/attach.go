// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func attach(ctx context.Context, args []string, out io.Writer) (err error) {
	opts, err := parseAttach(args)
	if err != nil {
		return err
	}
	// From here on the signal does not end the process.
	report := make(chan os.Signal, 1)
	notifyReport(report)
	defer signal.Stop(report)

	a, err := opts.attach()
	if err != nil {
		return err
	}
	defer a.Close()
	gone, err := watchRemoval(a.Cgroup())
	if err != nil {
		return err
	}
	defer gone.Close()
	shared := ""
	if a.Shared() {
		shared = ", shared with another process"
	}
	sockets, err := a.Sockets()
	if err != nil {
		return err
	}
	policy, err := a.Policy()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "attached to %s: %d slots, up to %d sockets, %d of one user%s\n",
		a.Cgroup(), a.Info().Slots, sockets.Max, sockets.MaxPerUser, shared)
	fmt.Fprintf(out, "applications may ask for: %s\n", describe(policy))
	if opts.producer != "" {
		p, err := bpf.AttachProducer(opts.producer, bpf.ProducerOptions{Services: opts.services})
		if err != nil {
			return err
		}
		defer p.Close()
		mode := "driver"
		if p.Generic() {
			mode = "generic"
		}
		fmt.Fprintf(out, "producer on %s: %s XDP\n", opts.producer, mode)
	}
	for _, iface := range opts.locals {
		if _, err := a.AttachLocal(iface); err != nil {
			return err
		}
		fmt.Fprintf(out, "local on %s\n", iface)
	}
	if opts.pin != "" {
		defer func() { err = errors.Join(err, bpf.UnpinMaps(opts.pin)) }()
		if err := a.PinMaps(opts.pin); err != nil {
			return err
		}
		fmt.Fprintf(out, "maps pinned in %s\n", opts.pin)
	}
	for _, g := range opts.grants {
		if err := a.GrantReceiveMap(g); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, bpf.RevokeReceiveMap(g.Path)) }()
		fmt.Fprintf(out, "receive map granted in %s\n", g.Path)
	}
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-report:
			if err := printCounts(a, out); err != nil {
				return err
			}
		case <-look.C:
			if err := gone.check(); err != nil {
				return errors.Join(err, printCounts(a, out))
			}
		case <-ctx.Done():
			return printCounts(a, out)
		}
	}
}

func (o *attachOptions) attach() (*bpf.Attachment, error) {
	if o.join {
		return bpf.Join(o.Cgroup)
	}
	a, err := bpf.Attach(o.Options)
	if errors.Is(err, bpf.ErrConflict) {
		err = fmt.Errorf("%w (-join shares it as it is)", err)
	}
	return a, err
}

// describe says what a policy allows.
func describe(p bpf.Policy) string {
	launch := "no launch times"
	if p.LaunchTimes {
		launch = "launch times"
	}
	text := fmt.Sprintf("mark bits %#x, priorities up to %d, %s", p.MarkMask, p.MaxPriority, launch)
	for i, k := range p.LocalKeys {
		if i == 0 {
			text += ", to receivers on this host"
		}
		text += " " + sockmeta.Key(k).String()
	}
	return text
}

// printCounts leaves out what has not happened.
func printCounts(a *bpf.Attachment, out io.Writer) error {
	c, err := a.Counts()
	if err != nil {
		return err
	}
	line := fmt.Sprintf("sent: %d packets with metadata", c.Sent)
	for _, n := range []struct {
		count uint64
		what  string
	}{
		{c.Local, "%d of them to receivers on this host"},
		{c.Stale, "%d without, too late for theirs"},
		{c.Foreign, "%d without, having asked for another socket's"},
		{c.Malformed, "%d without, theirs being malformed"},
		{c.Busy, "%d without, too many at once"},
		{c.MarkRefused, "%d marks refused"},
		{c.PriorityRefused, "%d priorities refused"},
		{c.LaunchRefused, "%d launch times refused"},
		{c.LocalKeys, "%d values kept from receivers on this host"},
		{c.Full, "opting in refused %d times, too many sockets having metadata"},
		{c.UserFull, "opting in refused %d times, their user having too many"},
	} {
		if n.count != 0 {
			line += ", " + fmt.Sprintf(n.what, n.count)
		}
	}
	_, err = fmt.Fprintln(out, line)
	return err
}
