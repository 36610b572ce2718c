// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSizesAsXSys(t *testing.T) {
	if HeaderLen != unix.SizeofCmsghdr {
		t.Errorf("HeaderLen is %d, want %d", HeaderLen, unix.SizeofCmsghdr)
	}
	for n := range 100 {
		if Len(n) != unix.CmsgLen(n) || Space(n) != unix.CmsgSpace(n) {
			t.Errorf("%d: Len %d, Space %d, want %d, %d",
				n, Len(n), Space(n), unix.CmsgLen(n), unix.CmsgSpace(n))
		}
	}
}

func TestAppendAsXSys(t *testing.T) {
	var fds []byte
	for _, fd := range []uint32{3, 4, 5} {
		fds = binary.NativeEndian.AppendUint32(fds, fd)
	}
	got := Append(nil, unix.SOL_SOCKET, unix.SCM_RIGHTS, fds)
	want := unix.UnixRights(3, 4, 5)
	if !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
}

func TestConstantsAreNobodysElse(t *testing.T) {
	for _, level := range []int{unix.SOL_SOCKET, unix.SOL_IP, unix.SOL_IPV6, unix.SOL_UDP, unix.SOL_TCP, unix.SOL_XDP} {
		if SOL_BPF == level {
			t.Errorf("SOL_BPF is %d", level)
		}
	}
}

// compareWithXSys checks that the iterator and x/sys say the same about oob.
func compareWithXSys(t *testing.T, oob []byte) {
	t.Helper()
	want, wantErr := unix.ParseSocketControlMessage(oob)

	var got []Message
	it := Parse(oob)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		got = append(got, m)
	}
	if (it.Err() != nil) != (wantErr != nil) {
		t.Fatalf("% x: error %v, x/sys %v", oob, it.Err(), wantErr)
	}
	if wantErr == nil && len(got) != len(want) {
		t.Fatalf("% x: %d messages, x/sys %d", oob, len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Level != w.Header.Level || g.Type != w.Header.Type || !bytes.Equal(g.Data, w.Data) {
			t.Fatalf("% x: message %d is %v, x/sys %v", oob, i, g, w)
		}
	}

	// What precedes an error only the other function of x/sys gives. It must
	// not be called without a whole header.
	rest := oob
	for i := 0; len(rest) >= headerLen; i++ {
		h, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			if i != len(got) {
				t.Fatalf("% x: %d messages in front of the error, x/sys %d", oob, len(got), i)
			}
			return
		}
		if i >= len(got) {
			t.Fatalf("% x: only %d messages", oob, len(got))
		}
		if got[i].Level != h.Level || got[i].Type != h.Type || !bytes.Equal(got[i].Data, data) {
			t.Fatalf("% x: message %d is %v, x/sys %v %v", oob, i, got[i], h, data)
		}
		rest = next
	}
}

func FuzzParse(f *testing.F) {
	two := Append(Append(nil, 1, 35, []byte("12345678")), SOL_BPF, SCM_RECORD, []byte("abc"))
	for n := range len(two) + 1 {
		f.Add(two[:n])
	}
	f.Add(header(0, 0, 0))
	f.Add(header(1<<62, -1, -1))
	f.Add(append(header(uint64(headerLen), 1, 1), header(1, 1, 1)...))
	f.Add(append(header(uint64(headerLen+1), 1, 1), 1))
	f.Fuzz(compareWithXSys)
}

// TestWriterAsKernel has the kernel fill buffers of all sizes, and a Writer do
// the same.
func TestWriterAsKernel(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Skip(err)
	}
	for _, opt := range []int{unix.IP_PKTINFO, unix.IP_RECVTTL, unix.IP_RECVTOS, unix.IP_RECVORIGDSTADDR} {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, opt, 1); err != nil {
			t.Skip(err)
		}
	}
	self, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		t.Fatal(err)
	}

	const fill = 0xEE
	receive := func(size int) (oob []byte, n, flags int) {
		t.Helper()
		if err := unix.Sendto(fd, []byte("x"), 0, self); err != nil {
			t.Skip(err)
		}
		oob = bytes.Repeat([]byte{fill}, size)
		_, n, flags, _, err := unix.Recvmsg(fd, make([]byte, 1), oob, 0)
		if err != nil {
			t.Fatal(err)
		}
		return oob, n, flags
	}

	whole, n, flags := receive(512)
	if flags&unix.MSG_CTRUNC != 0 || n == 0 {
		t.Fatalf("%d bytes of control messages, flags %#x", n, flags)
	}
	for size := range n + align + 1 {
		want, wantN, flags := receive(size)
		got := bytes.Repeat([]byte{fill}, size)
		w := NewWriter(got)
		for m := range All(whole[:n]) {
			w.Put(int(m.Level), int(m.Type), m.Data)
		}
		if w.Len() != wantN || !bytes.Equal(got, want) {
			t.Errorf("size %d: %d bytes, kernel %d\n   got % x\nkernel % x", size, w.Len(), wantN, got, want)
		}
		if cut := flags&unix.MSG_CTRUNC != 0; w.Truncated() != cut {
			t.Errorf("size %d: truncated %v, kernel %v", size, w.Truncated(), cut)
		}
	}
}
