// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"errors"
	"net"
	"strings"
	"syscall"
)

// isOrdinary tells networks of a kind, udp or tcp, with addresses that mean the
// same as strings, so that net makes the socket by way of Control, which opts it
// in before it receives anything. Other addresses net would look up as names, or
// take "[::]" for the IPv4 wildcard.
func isOrdinary(kind, network string, ip net.IP, zone string) bool {
	switch {
	case network != kind && network != kind+"4" && network != kind+"6":
		return false
	case len(ip) == 0:
		return true
	case ip.To4() != nil:
		return zone == ""
	}
	return len(ip) == net.IPv6len && !strings.HasSuffix(network, "4")
}

// reachedKernel says that net took the addresses, or gave up waiting: what it
// says of others depends on whether they were strings.
func reachedKernel(err error) bool {
	var errno syscall.Errno
	var timeout net.Error
	return errors.As(err, &errno) || errors.As(err, &timeout) && timeout.Timeout()
}

// withAddrs gives an error the addresses as the caller wrote them.
func withAddrs(err error, source, addr net.Addr) error {
	var op *net.OpError
	if errors.As(err, &op) {
		op.Source, op.Addr = source, addr
	}
	return err
}
