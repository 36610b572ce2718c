// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
)

// batchPair is a socket without metadata as NewUDPConn makes it, and one that
// sends to it.
func batchPair(t *testing.T) (*UDPConn, *net.UDPConn) {
	t.Helper()
	plain, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	c := unsupported(plain)
	if c.sock.raw, err = plain.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	client, err := net.DialUDP("udp4", nil, plain.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if err := plain.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c, client
}

// TestBatchUnsupported has batches of a socket without metadata, 1024 messages at
// most.
func TestBatchUnsupported(t *testing.T) {
	c, client := batchPair(t)
	to := client.LocalAddr()
	ms := make([]ipv4.Message, maxBatch+1)
	meta := make([]Message, maxBatch+1)
	for i := range ms {
		ms[i] = ipv4.Message{Buffers: [][]byte{{}}, Addr: to}
		meta[i] = Message{Addr: to.(*net.UDPAddr).AddrPort()}
	}
	if err := client.SetReadBuffer(1 << 12); err != nil {
		t.Fatal(err)
	}
	if n, err := c.WriteBatch(ms, 0); n != maxBatch || err != nil {
		t.Errorf("%d sent, %v", n, err)
	}
	if n, err := c.WriteBatchMetadata(meta, 0); n != maxBatch || err != nil {
		t.Errorf("%d sent, %v", n, err)
	}
	for _, b := range []string{"one", "two"} {
		if _, err := client.Write([]byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, 16)}
		meta[i].Buf = ms[i].Buffers[0]
	}
	if n, err := c.ReadBatch(ms[:1], 0); n != 1 || err != nil || string(ms[0].Buffers[0][:ms[0].N]) != "one" || ms[0].Addr.String() != to.String() {
		t.Errorf("%d read, %v, %+v", n, err, ms[0])
	}
	meta[0].Metadata.SetMark(4711)
	if n, err := c.ReadBatchMetadata(meta, 0); n != 1 || err != nil || string(meta[0].Buf[:meta[0].N]) != "two" ||
		!errors.Is(meta[0].Err, ErrNotSupported) || meta[0].Metadata != (cmsg.Metadata{}) {
		t.Errorf("%d read, %v, %+v", n, err, meta[0])
	}
	if n, err := c.ReadBatchMetadata(meta, unix.MSG_DONTWAIT); n != 0 || !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("nothing there: %d, %v", n, err)
	}
}

// TestBatchForgets has what is kept for the next batch keep nobody's buffers.
func TestBatchForgets(t *testing.T) {
	m := newMmsg(3, 3, 0)
	m.sending()
	for i := range 3 {
		m.source(i)
		m.buffer(i, make([]byte, 8))
		m.control(i, make([]byte, 8))
		m.errs[i] = ErrOverrun
	}
	hdrs, iovs, errs := m.hdrs, m.iovs, m.errs
	// As encode does that has no slots.
	m.hdrs = m.hdrs[:1]
	m.release()
	for i := range hdrs {
		if h := hdrs[i].hdr; h.Iov != nil || h.Control != nil || h.Name != nil || iovs[i].Base != nil || errs[i] != nil {
			t.Errorf("message %d: %+v, %+v, %v", i, h, iovs[i], errs[i])
		}
	}
}

// TestBatchSlots ends a batch where there are no transmit slots for the rest of it.
func TestBatchSlots(t *testing.T) {
	slots, err := bpf.ProcessTxSlots()
	if err != nil {
		t.Skip(err)
	}
	c, client := batchPair(t)
	c.sock.err = nil
	c.errOverrun = opError("metadata", c.udp, ErrOverrun)
	tx := &transmitter{slots: slots}
	tx.checked.Store(math.MaxInt64)
	c.tx.Store(tx)
	var taken []int
	for slot, ok := slots.Take(); ok; slot, ok = slots.Take() {
		taken = append(taken, slot)
	}
	release := func(n int) {
		for _, slot := range taken[:n] {
			slots.Release(slot)
		}
		taken = taken[n:]
	}
	defer func() { release(len(taken)) }()
	ms := make([]Message, 4)
	for i := range ms {
		ms[i] = Message{Buf: fmt.Append(nil, i), Addr: client.LocalAddr().(*net.UDPAddr).AddrPort()}
		ms[i].Metadata.SetMark(1)
	}
	// SO_TXTIME is not set on the socket: the kernel refuses what has a slot.
	if n, err := c.WriteBatchMetadata(ms[:1], 0); n != 1 || err != nil || !errors.Is(ms[0].Err, ErrOverrun) {
		t.Errorf("without a slot: %d, %v, %v", n, err, ms[0].Err)
	}
	// The clock, and no flags.
	txtime := string(append(binary.NativeEndian.AppendUint32(nil, unix.CLOCK_MONOTONIC), make([]byte, 4)...))
	if err := unix.SetsockoptString(fdOf(t, c), unix.SOL_SOCKET, unix.SO_TXTIME, txtime); err != nil {
		t.Fatal(err)
	}
	release(2)
	for range 3 {
		ms[2].Err = errUnsupported
		if n, err := c.WriteBatchMetadata(ms, 0); n != 2 || err != nil || ms[2].Err != errUnsupported {
			t.Errorf("with two slots: %d, %v, %v", n, err, ms[2].Err)
		}
	}
	if err := client.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0", "0", "1", "0", "1", "0", "1"} {
		b := make([]byte, 8)
		if n, err := client.Read(b); string(b[:n]) != want {
			t.Errorf("%q came, %v, want %q", b[:n], err, want)
		}
	}
}

func fdOf(t *testing.T, c *UDPConn) (fd int) {
	t.Helper()
	if err := c.sock.raw.Control(func(p uintptr) { fd = int(p) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestSegments has all modes, set and unset, on a plain socket.
func TestSegments(t *testing.T) {
	c, client := batchPair(t)
	for mode, want := range map[Segments]string{SegmentsOff: "off", SegmentsSplit: "split", SegmentsWhole: "whole", 7: "Segments(7)"} {
		if got := mode.String(); got != want {
			t.Errorf("%d is %q", int(mode), got)
		}
		err := c.SetGRO(mode)
		var op *net.OpError
		if mode == 7 && (!errors.Is(err, syscall.EINVAL) || !errors.As(err, &op) || op.Op != "set") || mode != 7 && err != nil {
			t.Errorf("%v: %v", mode, err)
		}
	}
	if err := c.SetGRO(SegmentsSplit); err != nil {
		t.Fatal(err)
	}
	oob := cmsg.Append(nil, unix.SOL_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, 5))
	if _, _, err := client.WriteMsgUDPAddrPort([]byte("firstsecond"), oob, netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first", "secon", "d"} {
		b := make([]byte, 16)
		if n, from, err := c.ReadFromUDPAddrPort(b); string(b[:n]) != want || err != nil || from != client.LocalAddr().(*net.UDPAddr).AddrPort() {
			t.Errorf("%q from %v, %v, want %q", b[:n], from, err, want)
		}
	}
	closed, _ := batchPair(t)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := closed.SetGRO(SegmentsSplit); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := closed.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
