// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// attachOptions are the flags of attach.
type attachOptions struct {
	bpf.Options
	join     bool
	producer string
	services services
	locals   []string
	pin      string
	grants   []bpf.Grant
}

func parseAttach(args []string) (attachOptions, error) {
	policy := bpf.DefaultPolicy()
	o := attachOptions{Options: bpf.Options{Policy: &policy}, services: make(services)}
	flags := flag.NewFlagSet("attach", flag.ContinueOnError)
	var said strings.Builder
	flags.SetOutput(&said)
	flags.StringVar(&o.Cgroup, "cgroup", "", "`directory` of a cgroup v2 (default: this process's)")
	flags.BoolVar(&o.join, "join", false, "share what another process has attached, with its options; nothing is attached anew")
	flags.IntVar(&o.SlotsPerCPU, "slots", 0, "received packets to remember for each CPU, a power of two (default: 4096)")
	flags.IntVar(&o.MaxSockets, "max-sockets", 0, "`sockets` that may have metadata at once (default: what a third of this process's memory suffices for)")
	flags.IntVar(&o.MaxSocketsPerUser, "max-sockets-per-user", 0, "`sockets` of one user that may have (default: half of them)")
	flags.BoolVar(&o.Tracing, "tracing", false, "read raw SOL_BPF control messages, whatever sends them")
	flags.StringVar(&o.producer, "producer", "", "`interface` whose packets get a packet id, time and service id")
	flags.Var(o.services, "service", "`PORT=ID`: service id of packets to a port; may be repeated")
	flags.Var((*number)(&policy.MarkMask), "mark-mask", "`bits` of the mark that applications may set (default: none)")
	flags.Var((*number)(&policy.MaxPriority), "max-priority", "highest `priority` that applications may set (default: 6)")
	noLaunchTimes := flags.Bool("no-launch-times", false, "keep applications from setting launch times")
	flags.Func("local-key", "`key`, number or name, whose values may reach receivers on this host; may be repeated", func(v string) error {
		k, err := parseKey(v)
		policy.LocalKeys = append(policy.LocalKeys, k)
		return err
	})
	flags.Func("local", "`interface` that they go through, lo or an end of a veth pair; may be repeated", func(v string) error {
		o.locals = append(o.locals, v)
		return nil
	})
	flags.Func("grant", "`[USER][:GROUP]=PATH` on a bpffs where that user and that group may map all received metadata; may be repeated", func(v string) error {
		g, err := parseGrant(v)
		o.grants = append(o.grants, g)
		return err
	})
	flags.StringVar(&o.pin, "pin", "", "`directory` on a bpffs for the maps by which other programs read what is sent")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(os.Stderr, said.String())
		return o, err
	case err != nil:
		return o, fmt.Errorf("%w (attach -h tells of each flag)", err)
	}
	policy.LaunchTimes = !*noLaunchTimes
	switch {
	case o.join && isAnySet(flags, "slots", "max-sockets", "max-sockets-per-user", "tracing", "mark-mask", "max-priority", "no-launch-times", "local-key"):
		return o, fmt.Errorf("-join takes the options of what is attached: it goes without flags that set them\n%w", errUsage)
	case flags.NArg() != 0:
		return o, fmt.Errorf("no arguments are wanted but flags: %q\n%w", flags.Args(), errUsage)
	case o.producer == "" && len(o.services) != 0:
		return o, fmt.Errorf("-service is for the producer: name its interface by -producer\n%w", errUsage)
	case len(o.locals) != 0 && policy.LocalKeys == nil && !o.join:
		return o, fmt.Errorf("-local lets nothing through without -local-key\n%w", errUsage)
	}
	return o, nil
}

func isAnySet(flags *flag.FlagSet, names ...string) bool {
	is := false
	flags.Visit(func(f *flag.Flag) { is = is || slices.Contains(names, f.Name) })
	return is
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

// parseGrant knows users and groups by name or number.
func parseGrant(v string) (g bpf.Grant, err error) {
	who, path, _ := strings.Cut(v, "=")
	name, group, _ := strings.Cut(who, ":")
	if path == "" || name == "" && group == "" {
		return g, errors.New("want [USER][:GROUP]=PATH")
	}
	g.Path = path
	if name != "" {
		if g.UID, err = id(name, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		}); err != nil {
			return g, err
		}
	}
	if group != "" {
		g.GID, err = id(group, func(name string) (string, error) {
			gr, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return gr.Gid, nil
		})
	}
	return g, err
}

func id(name string, lookup func(name string) (string, error)) (int, error) {
	n, err := strconv.ParseUint(name, 10, 31)
	if err == nil {
		return int(n), nil
	}
	number, err := lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(number)
}

// number is a flag with 32 bits, in decimal, or 0x... and the like.
type number uint32

func (n *number) String() string { return "" }

func (n *number) Set(v string) error {
	u, err := strconv.ParseUint(v, 0, 32)
	if err != nil {
		return errors.New("want a number of 32 bits")
	}
	*n = number(u)
	return nil
}

// parseKey knows keys by the names that metadata is printed with.
func parseKey(v string) (uint8, error) {
	n, err := strconv.ParseUint(v, 0, 8)
	for k := sockmeta.Key(0); err != nil && k < sockmeta.KeyUser; k++ {
		if k.String() == v {
			n, err = uint64(k), nil
		}
	}
	switch {
	case err != nil:
		return 0, errors.New("want a number from 1 to 254 or a name, as trace_id")
	case uint8(n) == abi.KeyPad || uint8(n) == abi.KeyAnchor || uint8(n) == abi.KeySender:
		return 0, fmt.Errorf("key %d has no value of an application's", n)
	}
	return uint8(n), nil
}
