// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const maxOptlen = 8192

// optlens are sizes of options: all up to two pages, with -short those that an
// option of ours may have, those about a page, and some of the others.
func optlens(yield func(int) bool) {
	for size := 0; size <= maxOptlen; size++ {
		if testing.Short() && size > 600 && (size < 4090 || size > 4100) && size%97 != 0 && size != maxOptlen {
			continue
		}
		if !yield(size) {
			return
		}
	}
}

// rawGetsockopt gives the kernel a buffer of size bytes and checks that it
// writes nowhere else.
func rawGetsockopt(t *testing.T, fd uintptr, level, opt, size int, buf []byte) (got []byte, errno unix.Errno) {
	t.Helper()
	for i := range buf {
		buf[i] = 0xEE
	}
	optlen := uint32(size)
	_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(unsafe.Pointer(&optlen)), 0)
	written := size
	if errno == 0 {
		if int(optlen) > size {
			t.Fatalf("option %#x: %d bytes returned into %d", opt, optlen, size)
		}
		written = int(optlen)
	}
	if rest := buf[written:]; len(bytes.Trim(rest, "\xEE")) != 0 {
		t.Fatalf("option %#x: wrote past the %d bytes of %d", opt, written, size)
	}
	return buf[:written], errno
}

func rawSetsockopt(fd uintptr, level, opt int, value []byte) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, fd, uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(len(value)), 0)
	return errno
}

func control(t *testing.T, c syscall.Conn, f func(fd uintptr)) {
	t.Helper()
	rc, err := c.SyscallConn()
	must(t, err)
	must(t, rc.Control(f))
}

// sockoptLab has a socket of each kind, with metadata received.
type sockoptLab struct {
	*tcpLab
	udp    *sockmeta.UDPConn
	handle uint64
	tcp    *sockmeta.TCPConn
	listen *sockmeta.TCPListener
	plain  *net.UDPConn
}

func newSockoptLab(t *testing.T) *sockoptLab {
	t.Helper()
	lab := &sockoptLab{tcpLab: newTCPLab(t)}
	must(t, lab.Server.Do(func() (err error) {
		if lab.udp, err = sockmeta.ListenUDP("udp", &net.UDPAddr{Port: tcpPort}); err != nil {
			return err
		}
		lab.plain, err = net.ListenUDP("udp", nil)
		return err
	}))
	t.Cleanup(func() { _ = lab.udp.Close(); _ = lab.plain.Close() })
	must(t, lab.udp.Support().Err())
	// Behind the wrapper's back, for the handle.
	withFD(t, lab.udp, carryHandles)
	must(t, lab.Client.Do(func() error {
		d, err := net.Dial("udp", fmt.Sprintf("%v:%d", lab.ServerAddr4, tcpPort))
		if err != nil {
			return err
		}
		defer d.Close()
		_, err = d.Write([]byte("hello"))
		return err
	}))
	raw, err := lab.udp.SyscallConn()
	must(t, err)
	must(t, raw.Read(func(fd uintptr) bool {
		var b, oob [1024]byte
		_, n, _, _, err := unix.Recvmsg(int(fd), b[:], oob[:], 0)
		if err == unix.EAGAIN {
			return false
		}
		must(t, err)
		msgs, err := unix.ParseSocketControlMessage(oob[:n])
		must(t, err)
		for _, m := range msgs {
			if m.Header.Type == unix.SO_TIMESTAMPING || m.Header.Type == unix.SO_TIMESTAMPING_NEW {
				ts := (*[2]uint64)(unsafe.Pointer(&m.Data[0]))
				lab.handle = ts[0]*1e9 + ts[1]
			}
		}
		return true
	}))
	if lab.handle&abi.HandleBit == 0 {
		t.Fatalf("handle is %#x", lab.handle)
	}

	lab.listen = lab.tcpLab.listen(sockmeta.ListenConfig{})
	client := lab.dial(lab.ServerAddr4)
	lab.tcp = lab.accept(lab.listen)
	// The answer to a probe would be the newest segment.
	must(t, lab.tcp.SetKeepAlive(false))
	must1(t)(client.Write([]byte("hello")))
	read(t, lab.tcp, "hello")
	return lab
}

// TestGetsockoptSizes asks for every option with buffers of every size.
func TestGetsockoptSizes(t *testing.T) {
	lab := newSockoptLab(t)
	slot := abi.OptSlot + int(lab.handle&(1<<24-1))
	recordSize := int(unsafe.Sizeof(abi.Record{}))
	answerSize := int(unsafe.Sizeof(abi.Answer{}))
	infoSize := int(unsafe.Sizeof(bpf.Info{}))
	const none = -1
	for _, tt := range []struct {
		name string
		conn syscall.Conn
		opt  int
		size int // of the answer; none: the option has none
		want []unix.Errno
	}{
		{"udp info", lab.udp, abi.OptInfo, infoSize, nil},
		{"udp slot", lab.udp, slot, answerSize, nil},
		{"udp other slot", lab.udp, slot ^ 1, none, []unix.Errno{unix.ENODATA, unix.EMSGSIZE}},
		{"udp slot out of range", lab.udp, abi.OptSlot | 0xFFFFFF, none, []unix.Errno{unix.ENODATA, unix.EMSGSIZE}},
		{"udp tcp record", lab.udp, abi.OptTCPRead, none, []unix.Errno{unix.ENODATA}},
		{"udp no option", lab.udp, 99, none, unanswered},
		{"udp negative", lab.udp, -1, none, unanswered},
		{"udp beyond slots", lab.udp, 2 * abi.OptSlot, none, unanswered},
		{"udp enable", lab.udp, abi.OptEnable, none, unanswered},
		{"tcp info", lab.tcp, abi.OptInfo, infoSize, nil},
		{"tcp read", lab.tcp, abi.OptTCPRead, recordSize, nil},
		{"tcp opening", lab.tcp, abi.OptTCPOpening, recordSize, nil},
		{"tcp latest", lab.tcp, abi.OptTCPLatest, recordSize, nil},
		{"tcp slot of udp", lab.tcp, slot, none, []unix.Errno{unix.ENODATA, unix.EMSGSIZE}},
		{"listener read", lab.listen, abi.OptTCPRead, none, []unix.Errno{unix.ENODATA}},
		{"not opted in, info", lab.plain, abi.OptInfo, none, unanswered},
		{"not opted in, slot", lab.plain, slot, none, unanswered},
	} {
		t.Run(tt.name, func(t *testing.T) {
			buf := make([]byte, maxOptlen+64)
			var full []byte
			control(t, tt.conn, func(fd uintptr) {
				for size := range optlens {
					got, errno := rawGetsockopt(t, fd, abi.SOL_BPF, tt.opt, size, buf)
					switch {
					case tt.size == none:
						if !slices.Contains(tt.want, errno) {
							t.Fatalf("%d bytes: errno %v, want one of %v", size, errno, tt.want)
						}
					case size < tt.size:
						if errno != unix.EMSGSIZE {
							t.Fatalf("%d bytes: errno %v, want EMSGSIZE", size, errno)
						}
					case errno != 0 || len(got) != tt.size:
						t.Fatalf("%d bytes: errno %v, %d bytes returned, want %d", size, errno, len(got), tt.size)
					case full == nil:
						full = bytes.Clone(got)
					case !bytes.Equal(got, full):
						t.Fatalf("%d bytes: another answer than in %d", size, tt.size)
					}
				}
			})
		})
	}
}

// unanswered is what the kernel says of a level that it does not know.
var unanswered = []unix.Errno{unix.ENOPROTOOPT, unix.EOPNOTSUPP}

// TestSetsockoptSizes gives options of every size with random content.
func TestSetsockoptSizes(t *testing.T) {
	lab := newSockoptLab(t)
	random := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, maxOptlen)
	for i := range value {
		value[i] = byte(random.Uint32())
	}
	for _, c := range []syscall.Conn{lab.udp, lab.tcp, lab.listen, lab.plain} {
		control(t, c, func(fd uintptr) {
			for size := range optlens {
				errno := rawSetsockopt(fd, abi.SOL_BPF, abi.OptEnable, value[:size])
				want := unix.EINVAL
				if size >= 8 {
					// Long enough, and of an ABI that nobody answers for.
					want = unix.ENOPROTOOPT
				}
				if errno != want && !(want == unix.ENOPROTOOPT && slices.Contains(unanswered, errno)) {
					t.Fatalf("%T, %d bytes: errno %v, want %v", c, size, errno, want)
				}
				for _, opt := range []int{0, abi.OptInfo, abi.OptTCPLatest, abi.OptSlot, -1} {
					if errno := rawSetsockopt(fd, abi.SOL_BPF, opt, value[:size]); !slices.Contains(unanswered, errno) {
						t.Fatalf("%T, option %d, %d bytes: errno %v", c, opt, size, errno)
					}
				}
			}
		})
	}
	md, err := lab.tcp.Metadata()
	packetID(t, md, err)
}

// TestOtherOptions compares the options of other levels with and without the
// programs, in buffers beyond a page, too.
func TestOtherOptions(t *testing.T) {
	type result struct {
		value string
		errno unix.Errno
	}
	options := func(t *testing.T) map[string]result {
		results := make(map[string]result)
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		// The kernel takes what it knows of a longer value.
		long := append([]byte("reno"), make([]byte, maxOptlen)...)
		for _, size := range []int{0, 1, 4, 16, 4096, 4097, 8192} {
			results[fmt.Sprintf("set TCP_CONGESTION, %d", size)] = result{errno: rawSetsockopt(uintptr(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, long[:size])}
			buf := make([]byte, size+64)
			for name, opt := range map[string][2]int{
				"SO_TYPE":         {unix.SOL_SOCKET, unix.SO_TYPE},
				"SO_TIMESTAMPING": {unix.SOL_SOCKET, unix.SO_TIMESTAMPING},
				"TCP_CONGESTION":  {unix.IPPROTO_TCP, unix.TCP_CONGESTION},
				"TCP_INFO":        {unix.IPPROTO_TCP, unix.TCP_INFO},
				"nonsense":        {unix.IPPROTO_TCP, 12345},
			} {
				got, errno := rawGetsockopt(t, uintptr(fd), opt[0], opt[1], size, buf)
				if name == "TCP_INFO" {
					// Its times go on.
					clear(got)
				}
				results[fmt.Sprintf("get %s, %d", name, size)] = result{string(got), errno}
			}
		}
		return results
	}
	without := options(t)
	newSockoptLab(t)
	for name, got := range options(t) {
		if want := without[name]; got != want {
			t.Errorf("%s: %v, %q with programs, %v, %q without", name, got.errno, got.value, want.errno, want.value)
		}
	}
}
