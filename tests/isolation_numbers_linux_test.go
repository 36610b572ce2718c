// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() { children["isolationNumbers"] = isolationNumbers }

const (
	numberEnv = "SOCKMETA_TEST_NUMBER"
	sinkEnv   = "SOCKMETA_TEST_SINK"
)

// numbersTried is how many datagrams isolationNumbers sends by each socket.
const numbersTried = 64

// TestIsolationNumbers has another user send by the number of a record that the
// victim's process has ready, and by those around it: on the victim's socket, which
// he was given, and on his own.
func TestIsolationNumbers(t *testing.T) {
	testutil.Leaks(t)
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	slots, err := bpf.ProcessTxSlots()
	must(t, err)
	info := register(t, slots, c)
	slot, ok := slots.Take()
	if !ok {
		t.Fatal("no slot")
	}
	defer slots.Release(slot)
	b, md := lab.datagram(t)
	number := slots.Fill(slot, &info, md.Record())

	f, err := c.File()
	must(t, err)
	defer f.Close()
	out, err := testutil.RunChild(t, "isolationNumbers", testutil.ChildOptions{
		UID: nobody, GID: nobody, NoNewPrivs: true, Netns: lab.Client, Files: []*os.File{f},
		Env: []string{env(numberEnv, number), sinkEnv + "=" + lab.to4().String()},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lab.expect(t, 0, 2*numbersTried)
	counts, err := lab.attachment.Counts()
	must(t, err)
	if counts.Sent != 0 || counts.Foreign+counts.Stale != 2*numbersTried {
		t.Errorf("%+v, want %d refused", counts, 2*numbersTried)
	}
	// It is there, and the victim's.
	sendNumber(t, lab, c, b, number)
	lab.expect(t, 1, 2*numbersTried)
}

func isolationNumbers() error {
	to, err := netip.ParseAddrPort(os.Getenv(sinkEnv))
	if err != nil {
		return err
	}
	dst := &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	own, err := sockmeta.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	defer own.Close()
	slots, err := bpf.ProcessTxSlots()
	if err != nil {
		return err
	}
	victims := envNumber(numberEnv)
	try := func(fd int) error {
		for i := range uint64(numbersTried) {
			// Of other slots, used otherwise, of other processes.
			number := victims ^ (i&3 | i>>2&3<<12 | i>>4<<22)
			b := binary.NativeEndian.AppendUint64(nil, i|noMetadata)
			oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, number))
			if err := unix.Sendmsg(fd, b, oob, dst, 0); err != nil {
				return fmt.Errorf("number %#x: %w", number, err)
			}
		}
		return nil
	}
	// On the victim's socket this process has slots, too: empty ones.
	given := int(testutil.ChildFile(0).Fd())
	if _, err := slots.Register(given); err != nil {
		return err
	}
	if err := try(given); err != nil {
		return err
	}
	return onSocket(own, func(fd int) error {
		if _, err := slots.Register(fd); err != nil {
			return err
		}
		if err := bpf.EnableTxTime(fd); err != nil {
			return err
		}
		return try(fd)
	})
}
