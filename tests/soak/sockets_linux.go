// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// judgeSockets checks that no UDP or TCP socket is left in the namespaces, by the
// kernel's own counts: descriptors on their way between processes are nobody's.
func (s *soaking) judgeSockets(number int, l *Ledger) error {
	for end := time.Now().Add(growthPatience); ; time.Sleep(10 * time.Millisecond) {
		n := 0
		for _, ns := range append([]*netlab.Namespace{s.pair.Server, s.pair.Client}, s.hosts[:]...) {
			for _, name := range []string{"sockstat", "sockstat6"} {
				here, err := socketsInUse(ns, name)
				if err != nil {
					return err
				}
				n += here
			}
		}
		if n == 0 {
			return nil
		}
		if time.Now().After(end) {
			l.violate("round %d: %d sockets are left", number, n)
			return nil
		}
	}
}

func socketsInUse(ns *netlab.Namespace, name string) (n int, err error) {
	var b []byte
	err = ns.Do(func() (err error) {
		b, err = os.ReadFile("/proc/thread-self/net/" + name)
		return err
	})
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[1] != "inuse" {
			continue
		}
		switch f[0] {
		case "UDP:", "UDP6:", "TCP:", "TCP6:":
			here, err := strconv.Atoi(f[2])
			if err != nil {
				return 0, fmt.Errorf("%s: %w", name, err)
			}
			n += here
		}
	}
	return n, nil
}
