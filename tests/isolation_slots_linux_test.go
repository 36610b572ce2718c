// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() {
	children["isolationSweep"] = func() error { return withLoopback(isolationSweep) }
	children["isolationGiven"] = isolationGiven
}

// isolationSlots is few, so that the attacker's datagrams come to lie where the
// victim's were.
const isolationSlots = 16

// TestIsolationSlots has attackers look for the victim's records with sockets of
// their own, while the victim's is open and when it has been closed.
func TestIsolationSlots(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := newIsolationLab(t, isolationSlots)
	handles := lab.fill(t, lab.victim, victimMagic, isolationSlots)
	slots := int(lab.attachment.Info().Slots)

	// What they look for is there.
	withFD(t, lab.victim, func(fd int) error {
		l, err := sweep(fd, slots)
		if l.victim != len(handles) {
			t.Errorf("the victim finds %+v, want %d", l, len(handles))
		}
		return err
	})
	vars := []string{env(handleEnv, handles[0]), env(slotsEnv, uint64(slots))}
	t.Run("open", func(t *testing.T) { lab.attack(t, "isolationSweep", vars...) })
	must(t, lab.victim.Close())
	lab.victim = lab.listen(t)
	lab.fill(t, lab.victim, victimMagic, isolationSlots)
	must(t, lab.victim.Close())
	t.Run("closed", func(t *testing.T) { lab.attack(t, "isolationSweep", vars...) })
}

// isolationSweep asks for slots by sockets that opted in, ones that did not, and,
// again and again, by one that receives what takes the victim's places.
func isolationSweep() error {
	slots := int(envNumber(slotsEnv))
	var sockets []*sockmeta.UDPConn
	for range 8 {
		c, _, err := loopback()
		if err != nil {
			return err
		}
		defer c.Close()
		sockets = append(sockets, c)
	}
	own, send, err := loopback()
	if err != nil {
		return err
	}
	defer own.Close()
	for _, c := range append(sockets, own) {
		err := onSocket(c, func(fd int) error {
			if err := sweepsNothing(fd, slots); err != nil {
				return err
			}
			return guessHandles(fd, envNumber(handleEnv))
		})
		if err != nil {
			return err
		}
	}
	attached := own.Support().Err() == nil
	if attached {
		if err := onSocket(own, carryHandles); err != nil {
			return err
		}
	}
	for i := range 8 * isolationSlots {
		if err := send("own"); err != nil {
			return err
		}
		err := onSocket(own, func(fd int) error {
			l, err := sweep(fd, slots)
			if err == nil && (l.victim != 0 || l.answers > i+1 || attached != (l.answers != 0)) {
				err = fmt.Errorf("after %d datagrams: %+v", i+1, l)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func sweepsNothing(fd, slots int) error {
	l, err := sweep(fd, slots)
	if err == nil && l != (loot{}) {
		err = fmt.Errorf("found %+v", l)
	}
	return err
}

// guessHandles asks for a handle that is another socket's, and those around it.
func guessHandles(fd int, foreign uint64) error {
	const generation = 1 << 24
	for d := -64; d <= 64; d++ {
		for _, handle := range []uint64{foreign + uint64(d), foreign + uint64(d*generation)} {
			var md sockmeta.Metadata
			_, err := bpf.SocketSlot(fd, handle|abi.HandleBit, md.Record())
			if !errors.Is(err, bpf.ErrOverrun) && !errors.Is(err, bpf.ErrNotSupported) || md != (sockmeta.Metadata{}) {
				return fmt.Errorf("handle %#x: %v, %w", handle, md, err)
			}
		}
	}
	return nil
}

// TestIsolationGiven has the victim pass a socket on (SCM_RIGHTS). Who holds a
// socket reads its records, and no others.
func TestIsolationGiven(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := newIsolationLab(t, 4*isolationSlots)
	given := lab.listen(t)
	const victims, givens = isolationSlots, isolationSlots / 2
	handles := lab.fill(t, lab.victim, victimMagic, victims)
	want := len(lab.fill(t, given, givenMagic, givens))

	for who, opts := range lab.attackers() {
		t.Run(who, func(t *testing.T) {
			if opts.Container {
				testutil.RequireContainers(t)
			}
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			must(t, err)
			theirs := os.NewFile(uintptr(pair[1]), "socketpair")
			defer theirs.Close()
			defer unix.Close(pair[0])
			withFD(t, given, func(fd int) error { return unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(fd), nil, 0) })
			opts.Files = []*os.File{theirs}
			opts.Env = []string{env(handleEnv, handles[0]), env(slotsEnv, uint64(lab.attachment.Info().Slots)), env(givenEnv, uint64(want))}
			if out, err := testutil.RunChild(t, "isolationGiven", opts); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

const givenEnv = "SOCKMETA_TEST_GIVEN"

func isolationGiven() error {
	b, oob := make([]byte, 8), make([]byte, 64)
	_, oobn, _, _, err := unix.Recvmsg(int(testutil.ChildFile(0).Fd()), b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return fmt.Errorf("%d messages, %w", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return err
	}
	info, err := bpf.SocketInfo(fds[0])
	if err != nil {
		return err
	}
	if s, _ := bpf.FindSlots(info, ""); s != nil {
		return errors.New("the receive map can be mapped")
	}
	l, err := sweep(fds[0], int(envNumber(slotsEnv)))
	if err != nil {
		return err
	}
	if want := int(envNumber(givenEnv)); l != (loot{answers: want, given: want}) {
		return fmt.Errorf("found %+v, want %d", l, want)
	}
	var md sockmeta.Metadata
	if _, err := bpf.SocketSlot(fds[0], envNumber(handleEnv), md.Record()); !errors.Is(err, bpf.ErrOverrun) || md != (sockmeta.Metadata{}) {
		return fmt.Errorf("the victim's handle: %v, %w", md, err)
	}
	return nil
}
