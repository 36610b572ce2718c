// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"syscall"
)

// onSocket calls f with the descriptor of a connection, which stays open meanwhile.
func onSocket(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(cerr, err)
}
