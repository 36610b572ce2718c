// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// costBatch is how many datagrams are sent before they are read.
const costBatch = 64

// TestNativeCost tells what a record costs on its way through recvmsg, beside the
// handle tier, which takes it from a slot: the median of each, and by that of a socket
// that gets none. The times of an emulated machine say nothing.
func TestNativeCost(t *testing.T) {
	lab := newNativeLab(t)
	attachProducer(t, lab.Pair, bpf.ProducerOptions{})
	rounds := testutil.Scale(200)
	kinds := []struct {
		name string
		opt  func(fd int) error
		read func(b *costReader) error
	}{
		{"plain", func(int) error { return nil }, func(b *costReader) error { return b.recvmsg(0) }},
		{"handle", func(fd int) error {
			if err := bpf.EnableSocket(fd, 0); err != nil {
				return err
			}
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING_NEW, unix.SOF_TIMESTAMPING_SOFTWARE)
		}, func(b *costReader) error {
			if err := b.recvmsg(1); err != nil {
				return err
			}
			var rec abi.Record
			data, _ := cmsg.Find(b.oob[:b.oobn], unix.SOL_SOCKET, unix.SO_TIMESTAMPING_NEW)
			handle := binary.NativeEndian.Uint64(data)*1e9 + binary.NativeEndian.Uint64(data[8:])
			_, err := lab.a.Slots().Read(handle, b.id, &rec)
			return err
		}},
		{"native", func(fd int) error { return bpf.EnableSocketCmsg(fd, 0) }, func(b *costReader) error {
			if err := b.recvmsg(1); err != nil {
				return err
			}
			var md cmsg.Metadata
			_, err := cmsg.FindMetadata(b.oob[:b.oobn], &md)
			return err
		}},
	}
	k := udpKinds(lab.Pair)[2]
	times := make([][]float64, len(kinds))
	readers := make([]*costReader, len(kinds))
	for i, kind := range kinds {
		fd := lab.openPort(serverPort + 20 + i)
		must(t, kind.opt(fd))
		readers[i] = &costReader{fd: fd, b: make([]byte, 64), oob: make([]byte, 512)}
		if i == 1 {
			id, err := bpf.SocketID(fd, lab.a.Info())
			must(t, err)
			readers[i].id = id
		}
	}
	for round := range rounds {
		for n := range kinds {
			i := (n + round) % len(kinds)
			client := lab.dialPort(k, serverPort+20+i)
			for range costBatch {
				send(t, client, "payload of a packet")
			}
			_ = client.Close()
			start := time.Now()
			for range costBatch {
				must(t, kinds[i].read(readers[i]))
			}
			times[i] = append(times[i], float64(time.Since(start).Nanoseconds())/costBatch)
		}
	}
	first := median(times[0])
	for i, kind := range kinds {
		t.Logf("%s: %.0f ns, %.2f times the plain one's", kind.name, median(times[i]), median(times[i])/first)
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// A costReader receives datagrams without allocating.
type costReader struct {
	fd     int
	id     uint64
	b, oob []byte
	oobn   int
}

// recvmsg receives one, with control messages or without.
func (r *costReader) recvmsg(messages int) error {
	iov := unix.Iovec{Base: &r.b[0]}
	iov.SetLen(len(r.b))
	msg := unix.Msghdr{Iov: &iov, Control: &r.oob[0]}
	msg.SetIovlen(1)
	msg.SetControllen(len(r.oob))
	_, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&msg)), 0)
	runtime.KeepAlive(r)
	if errno != 0 {
		return errno
	}
	r.oobn = int(msg.Controllen)
	if (r.oobn != 0) != (messages != 0) {
		return fmt.Errorf("%d bytes of control messages", r.oobn)
	}
	return nil
}
