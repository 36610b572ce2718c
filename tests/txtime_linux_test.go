// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// txTime is struct sock_txtime.
type txTime struct{ clock, flags int32 }

func setTxTime(fd int, v txTime) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_TXTIME,
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// sendByTime lets a socket send with times, as applications do without sockmeta.
func sendByTime(fd int) error { return setTxTime(fd, txTime{clock: unix.CLOCK_MONOTONIC}) }

func getTxTime(t *testing.T, c *sockmeta.UDPConn) (v txTime) {
	t.Helper()
	withFD(t, c, func(fd int) error {
		size := uint32(unsafe.Sizeof(v))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_TXTIME,
			uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	return v
}

// TestLetInTxTimeClock has an application give its socket a clock, before and after
// metadata is sent: it stays, and WriteMetadata says what keeps it from sending some.
func TestLetInTxTimeClock(t *testing.T) {
	testutil.RequireRoot(t)
	for _, tt := range []struct {
		name  string
		app   txTime
		works bool
	}{
		{"realtime", txTime{unix.CLOCK_REALTIME, 0}, false},
		{"realtime with flags", txTime{unix.CLOCK_REALTIME, 2}, false},
		{"TAI", txTime{unix.CLOCK_TAI, 0}, false},
		{"monotonic", txTime{unix.CLOCK_MONOTONIC, 0}, true},
		{"monotonic with flags", txTime{unix.CLOCK_MONOTONIC, 2}, true},
	} {
		for _, after := range []bool{false, true} {
			name := tt.name + " before"
			if after {
				name = tt.name + " after"
			}
			t.Run(name, func(t *testing.T) {
				testutil.Leaks(t)
				lab := newTxLab(t, bpf.DefaultPolicy())
				c := lab.udp(t, "udp4", nil)
				if after {
					b, md := lab.datagram(t)
					must1(t)(c.WriteMetadata(b, md, lab.to4()))
					lab.arrives(t, b)
				}
				withFD(t, c, func(fd int) error { return setTxTime(fd, tt.app) })
				var err error
				// Those who have sent already notice after a while.
				for end := time.Now().Add(udpPatience); time.Now().Before(end); {
					b, md := lab.datagram(t)
					_, err = c.WriteMetadata(b, md, lab.to4())
					lab.arrives(t, b)
					if err != nil || !after || tt.works {
						break
					}
				}
				switch {
				case tt.works && err != nil:
					t.Error(err)
				case !tt.works && (!errors.Is(err, sockmeta.ErrNotSupported) || !strings.Contains(err.Error(), "clock")):
					t.Errorf("%v, want one about the clock", err)
				}
				if got := getTxTime(t, c); got != tt.app {
					t.Errorf("SO_TXTIME is %+v, the application's is %+v", got, tt.app)
				}
				// A time of the application's own goes along as it is.
				b, md := lab.datagram(t)
				var now unix.Timespec
				must(t, unix.ClockGettime(tt.app.clock, &now))
				oob := cmsg.Append(md.AppendCmsg(nil), unix.SOL_SOCKET, unix.SCM_TXTIME,
					binary.NativeEndian.AppendUint64(nil, uint64(now.Nano())))
				_, _, err = c.WriteMsgUDPAddrPort(b, oob, lab.to4())
				if err != nil && !sockmeta.IsMetadataError(err) || (err == nil) != tt.works {
					t.Error(err)
				}
				lab.arrives(t, b)
			})
		}
	}
	t.Run("never", func(t *testing.T) {
		lab := newTxLab(t, bpf.DefaultPolicy())
		c := lab.udp(t, "udp4", nil)
		b, md := lab.datagram(t)
		must1(t)(c.WriteMetadata(b, md, lab.to4()))
		if got := getTxTime(t, c); got != (txTime{clock: unix.CLOCK_MONOTONIC}) {
			t.Errorf("%+v", got)
		}
	})
}
