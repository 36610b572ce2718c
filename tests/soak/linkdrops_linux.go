// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// linkDrops returns how many packets the link from the client to the server has
// dropped.
func linkDrops(pair *netlab.Pair) (int, error) {
	in, err := deviceCount(pair.Server, pair.ServerIf, receiveDrops)
	if err != nil {
		return 0, err
	}
	out, err := deviceCount(pair.Client, pair.ClientIf, transmitDrops)
	return in + out, err
}

// Columns of /proc/net/dev.
const (
	receiveDrops  = 4
	transmitDrops = 12
)

func deviceCount(ns *netlab.Namespace, name string, column int) (n int, err error) {
	var b []byte
	err = ns.Do(func() (err error) {
		b, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	})
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > column && f[0] == name+":" {
			return strconv.Atoi(f[column])
		}
	}
	return 0, fmt.Errorf("no link %s", name)
}
