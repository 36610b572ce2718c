// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"runtime"
	"syscall"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// memory shows what a socket that opted in costs more than a plain one: what the
// kernel charges it for (its optmem, where the programs' storage is counted) and
// what its connection is in the process. The receive map is the attachment's own.
func memory(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	n := max(1000/m.scale, 10)
	// There are eight times as many sockets open in the end.
	if _, err := fileLimit(8*n + fileMargin); err != nil {
		return nil, err
	}
	plainUDP := func() (*net.UDPConn, error) { return l.plainUDP(nil) }
	plainTCP := func() (_, _ *net.TCPConn, err error) { return l.plainTCP(nil) }
	var rows []Row
	for _, kind := range []struct {
		id, what     string
		opted, plain func() (syscall.Conn, error)
	}{
		{"udp", "a UDP socket", conns(l.udp), conns(plainUDP)},
		{"tcp", "a TCP connection", server(l.tcp), server(plainTCP)},
	} {
		opted, err := weigh(n, kind.opted)
		if err != nil {
			return nil, err
		}
		plain, err := weigh(n, kind.plain)
		if err != nil {
			return nil, err
		}
		bytes := func(id, what string, v float64) {
			rows = append(rows, Row{ID: "memory/" + kind.id + "-" + id, What: kind.what + " that opted in, " + what,
				Against: "a plain one", Value: estimate([]float64{v}), Unit: Bytes})
		}
		bytes("kernel", "in the kernel", opted.kernel-plain.kernel)
		bytes("process", "in the process", opted.process-plain.process)
	}
	return rows, nil
}

// conns and server forget the type of what a lab makes, and the other end.
func conns[C syscall.Conn](listen func() (C, error)) func() (syscall.Conn, error) {
	return func() (syscall.Conn, error) { return listen() }
}

func server[C syscall.Conn](connect func() (*net.TCPConn, C, error)) func() (syscall.Conn, error) {
	return func() (syscall.Conn, error) {
		_, c, err := connect()
		return c, err
	}
}

// A weight is what each of many connections costs, in bytes.
type weight struct{ kernel, process float64 }

func weigh(n int, connect func() (syscall.Conn, error)) (w weight, err error) {
	all := make([]syscall.Conn, n)
	before := heapInUse()
	for i := range all {
		if all[i], err = connect(); err != nil {
			return w, err
		}
	}
	w.process = float64(heapInUse()-before) / float64(n)
	for _, c := range all {
		err := control(c, func(fd int) error {
			info, err := netlab.SocketMemInfo(fd)
			w.kernel += float64(info.Optmem) / float64(n)
			return err
		})
		if err != nil {
			return w, err
		}
	}
	return w, nil
}

func heapInUse() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
