// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

const kmodName = "sockmeta"

// loadModule loads the kernel module, unloadModule unloads it.
func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("finit_module", unix.FinitModule(int(f.Fd()), "", 0))
}

// unloadModule waits for the kernel to be done with programs that are closed, which
// it is later.
func unloadModule() error {
	for end := time.Now().Add(udpPatience); ; time.Sleep(time.Millisecond) {
		err := unix.DeleteModule(kmodName, unix.O_NONBLOCK)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return os.NewSyscallError("delete_module", err)
		}
	}
}

// storageOf makes a map that keeps something for sockets: then the module looks at
// them.
func storageOf(t testing.TB, fds ...int) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.SkStorage, Flags: unix.BPF_F_NO_PREALLOC, KeySize: 4, ValueSize: 4,
		Key: btfInt(), Value: btfInt(),
	})
	must(t, err)
	t.Cleanup(func() { _ = m.Close() })
	for _, fd := range fds {
		must(t, m.Put(uint32(fd), uint32(1)))
	}
}

// moduleTraffic sends and receives, on sockets that the module looks at, until its
// stop is called: by tasks that sleep in recvmsg nearly always, and by some that
// never do.
type moduleTraffic struct {
	stop            func()
	sent, received  atomic.Uint64
	wrong, failures atomic.Uint64
}

func startModuleTraffic(t *testing.T, p *netlab.Pair) *moduleTraffic {
	t.Helper()
	const sockets, receivers = 4, 3
	tr := new(moduleTraffic)
	var done atomic.Bool
	var wg sync.WaitGroup
	record := rawRecord(1)
	for i := range sockets {
		pc := listenPlain(t, p.Server, netaddr(p.ServerAddr4.String(), serverPort+10+i))
		var fd int
		withFD(t, pc, func(f int) (err error) { fd, err = unix.Dup(f); return err })
		t.Cleanup(func() { _ = unix.Close(fd) })
		must(t, unix.SetNonblock(fd, false))
		patience := unix.NsecToTimeval(int64(50 * time.Millisecond))
		must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience))
		storageOf(t, fd)
		for range receivers {
			wg.Go(func() {
				b, oob := make([]byte, 64), make([]byte, 512)
				for !done.Load() {
					n, _, _, _, err := unix.Recvmsg(fd, b, oob, 0)
					switch {
					case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
					case err != nil:
						tr.failures.Add(1)
					case !bytes.Equal(b[:n], []byte("payload")):
						tr.wrong.Add(1)
					default:
						tr.received.Add(1)
					}
				}
			})
		}
		client := dialUDP(t, p.Client, nil, pc.LocalAddr().(*net.UDPAddr))
		wg.Go(func() {
			// One socket is always busy, one nearly idle.
			pause := time.Duration(i*i) * 3 * time.Millisecond
			for !done.Load() {
				if _, _, err := client.WriteMsgUDP([]byte("payload"), record, nil); err != nil {
					tr.failures.Add(1)
				} else {
					tr.sent.Add(1)
				}
				time.Sleep(max(pause, 100*time.Microsecond))
			}
		})
	}
	tr.stop = func() { done.Store(true); wg.Wait() }
	t.Cleanup(tr.stop)
	return tr
}

// sleepInRecvmsg has a task sleep in recvmsg, on a socket that the module looks at,
// until the function that it returns is called: that sends what it waits for.
func sleepInRecvmsg(t *testing.T, p *netlab.Pair) (wake func() error) {
	t.Helper()
	pc := listenPlain(t, p.Server, netaddr(p.ServerAddr4.String(), serverPort+9))
	var fd int
	withFD(t, pc, func(f int) (err error) { fd, err = unix.Dup(f); return err })
	t.Cleanup(func() { _ = unix.Close(fd) })
	must(t, unix.SetNonblock(fd, false))
	storageOf(t, fd)
	result := make(chan error, 1)
	go func() {
		b := make([]byte, 64)
		n, err := 0, error(unix.EINTR)
		// Signals would wake it, and it would begin anew. The thread ends with it.
		runtime.LockOSThread()
		must(t, blockSignals())
		for errors.Is(err, unix.EINTR) {
			n, _, _, _, err = unix.Recvmsg(fd, b, make([]byte, 512), 0)
		}
		if err == nil && string(b[:n]) != "wake up" {
			err = fmt.Errorf("received %q", b[:n])
		}
		result <- err
	}()
	client := dialUDP(t, p.Client, nil, pc.LocalAddr().(*net.UDPAddr))
	wake = sync.OnceValue(func() error {
		send(t, client, "wake up")
		return <-result
	})
	t.Cleanup(func() { _ = wake() })
	return wake
}

// blockSignals has signals go to other threads than the calling one.
func blockSignals() error {
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	return unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil)
}

func netaddr(ip string, port int) *net.UDPAddr { return &net.UDPAddr{IP: net.ParseIP(ip), Port: port} }

func listenPlain(t testing.TB, ns *netlab.Namespace, at *net.UDPAddr) (c *net.UDPConn) {
	t.Helper()
	must(t, ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp", at)
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestNativeModule unloads the module and loads it again while tasks sleep in recvmsg
// and others are busy, with programs that use it in between.
func TestNativeModule(t *testing.T) {
	testutil.RequireRoot(t)
	file := os.Getenv(kmodEnv)
	if file == "" {
		t.Skip("the kernel module is for tests/vm to load")
	}
	err := unloadModule()
	if errors.Is(err, unix.EWOULDBLOCK) {
		t.Skip("this process has attached programs that use the module: run TestNative alone")
	}
	must(t, err)
	must(t, loadModule(file))
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	loaded := true
	t.Cleanup(func() {
		if !loaded {
			must(t, loadModule(file))
		}
	})
	tr := startModuleTraffic(t, p)
	woken := sleepInRecvmsg(t, p)
	k := udpKinds(p)[0]
	client := k.dial(t, p)
	// More than the function graph tracer has places (FGRAPH_ARRAY_SIZE): it gives the
	// first one's again.
	const rounds = 18
	for round := range rounds {
		if round%2 == 0 {
			if err := useModule(t, p, k, client, round); err != nil {
				t.Error(err)
			}
		} else {
			time.Sleep(time.Duration(round%7) * time.Millisecond)
		}
		must(t, unloadModule())
		loaded = false
		time.Sleep(time.Duration(round%5) * time.Millisecond)
		must(t, loadModule(file))
		loaded = true
	}
	must(t, woken())
	tr.stop()
	sent, received := tr.sent.Load(), tr.received.Load()
	t.Logf("%d rounds, %d datagrams sent, %d received", rounds, sent, received)
	if tr.failures.Load() != 0 || tr.wrong.Load() != 0 || received == 0 || received > sent {
		t.Errorf("%d of %d received, %d wrong, %d failures", received, sent, tr.wrong.Load(), tr.failures.Load())
	}
	missed, err := os.ReadFile("/sys/module/" + kmodName + "/parameters/missed")
	if err != nil || string(missed) != "0\n" {
		t.Errorf("missed %s, %v", missed, err)
	}
}

// useModule attaches, receives a record, has the kernel refuse to unload the module,
// and closes all of it.
func useModule(t *testing.T, p *netlab.Pair, k udpKind, client *net.UDPConn, round int) error {
	t.Helper()
	a, err := bpf.Attach(bpf.Options{})
	if err != nil {
		return err
	}
	defer a.Close()
	c, err := k.openOn(p, openPlain)
	if err != nil {
		return err
	}
	defer c.Close()
	return onSocket(c, func(fd int) error {
		if err := bpf.EnableSocketCmsg(fd, 0); err != nil {
			return err
		}
		if err := unix.DeleteModule(kmodName, unix.O_NONBLOCK); !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("unloaded the module that programs use: %w", err)
		}
		for i := range uint64(3) {
			id := uint64(round)<<8 | i
			send(t, client, numbered(id))
			b, oob := make([]byte, 64), make([]byte, cmsg.MetadataSpace)
			if err := unix.SetNonblock(fd, false); err != nil {
				return err
			}
			n, oobn, flags, _, err := unix.Recvmsg(fd, b, oob, 0)
			if err != nil {
				return err
			}
			if got, err := recordID(oob[:oobn]); err != nil || got != id || idOf(b[:n]) != id || flags != 0 {
				return fmt.Errorf("datagram %d, record of %d, want %d: %w, flags %#x", idOf(b[:n]), got, id, err, flags)
			}
		}
		return nil
	})
}

// btfInt is int as maps of sockets want their keys and values to be described.
func btfInt() btf.Type { return &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed} }
