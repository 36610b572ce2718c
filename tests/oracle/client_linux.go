// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

// zeros are what clients send: the wire writes other bytes over them.
var zeros [1 << 16]byte

// send writes a connection's share, and reads until the server has closed it.
func send(c net.Conn, plan *connection, seed uint64) error {
	rng := rand.New(rand.NewPCG(plan.seed, seed))
	size, pause := choose(writeSizes[:], plan.write), choose(pauses[:], plan.pause)
	for left := plan.share(); left > 0; {
		n, err := c.Write(zeros[:min(size, left)])
		if err != nil {
			return err
		}
		left -= n
		if rng.IntN(1024) < pause {
			time.Sleep(time.Duration(rng.IntN(int(time.Millisecond))))
		}
	}
	if plan.mode != reused {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, c)
	return errors.Join(err, c.Close())
}
