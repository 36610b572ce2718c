// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// otherSockopt shows what the programs cost the getsockopt calls of sockets in
// their cgroup that have nothing to do with them, and what of that is the kernel's
// hook, which copies every option for programs to see.
func otherSockopt(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	nothing, _, err := l.empty(ebpf.CGroupSockopt, ebpf.AttachCGroupGetsockopt)
	if err != nil {
		return nil, err
	}
	var contenders []contender
	for _, c := range []struct {
		name string
		in   place
	}{{"free", nil}, {"empty", nothing}, {"here", l.cgroup}} {
		conn, err := l.plainUDP(c.in)
		if err != nil {
			return nil, err
		}
		contenders = append(contenders, contender{name: c.name, batch: func() error { return sockTypes(conn) }})
	}
	s, err := m.compare(1, contenders...)
	if err != nil {
		return nil, err
	}
	const what = "getsockopt of another socket in the cgroup"
	return []Row{
		s.slower("sockopt/free", what, "one with no program", nil, "here", "free"),
		s.slower("sockopt/empty", what, "one with an empty program", nil, "here", "empty"),
		s.slower("sockopt/hook", "getsockopt with an empty program", "one with no program", nil, "empty", "free"),
	}, nil
}

func sockTypes(c *net.UDPConn) error {
	return control(c, func(fd int) error {
		return each(func() error {
			_, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
			return err
		})()
	})
}
