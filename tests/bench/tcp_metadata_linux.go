// SPDX-License-Identifier: Apache-2.0

package main

import (
	"golang.org/x/sys/unix"
)

// tcpMetadata compares Metadata with a getsockopt of a socket that no programs see,
// each as applications call it: through the connection, which must not be closed
// meanwhile.
func tcpMetadata(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	client, c, err := l.tcp()
	if err != nil {
		return nil, err
	}
	if _, err := client.Write([]byte("payload")); err != nil {
		return nil, err
	}
	if _, err := c.Read(make([]byte, 64)); err != nil {
		return nil, err
	}
	rc, err := client.SyscallConn()
	if err != nil {
		return nil, err
	}
	var errMark error
	mark := func(fd uintptr) { _, errMark = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK) }
	s, err := m.compare(1, contender{
		name: "mark",
		batch: each(func() error {
			if err := rc.Control(mark); err != nil {
				return err
			}
			return errMark
		}),
	}, contender{
		name: "bare",
		batch: func() error {
			return control(client, func(fd int) error {
				return each(func() error {
					_, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK)
					return err
				})()
			})
		},
	}, contender{
		name: "metadata",
		batch: each(func() error {
			_, err := c.Metadata()
			return err
		}),
	})
	if err != nil {
		return nil, err
	}
	const what = "TCP Metadata()"
	return []Row{
		s.slower("tcp-metadata/mark", what, "getsockopt(SO_MARK), no program, by RawConn.Control",
			atMost(1.4), "metadata", "mark"),
		s.slower("tcp-metadata/bare", what, "the same, on a bare descriptor", nil, "metadata", "bare"),
	}, nil
}
