// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() {
	children["abuseOptions"] = abuseOptions
	children["abuseSockets"] = abuseSockets
	children["abuseSlots"] = abuseSlots
}

// socketMemory is the most that a socket makes the kernel keep for it, in bytes:
// what docs/security.md says. It is charged to the socket (net.core.optmem_max).
const socketMemory = 8 << 10

// TestAbuse has users without privileges do what they can to the options and the
// maps, while the victim's datagrams come and go as ever.
func TestAbuse(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	// Room for the victim's records among all those of the abuse.
	lab := newIsolationLab(t, 1<<15)
	from := dialUDP(t, lab.Client, nil, lab.victim.LocalAddr().(*net.UDPAddr))
	before := memoryOfMaps(t, lab.attachment)
	for _, name := range []string{"abuseOptions", "abuseSockets"} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			var abusers sync.WaitGroup
			for range 2 {
				abusers.Go(func() {
					out, err := testutil.RunChild(t, name, testutil.ChildOptions{
						UID: nobody, GID: nobody, NoNewPrivs: true, Netns: lab.Server,
					})
					if err != nil {
						t.Errorf("%v\n%s", err, out)
					}
				})
			}
			go func() {
				defer close(done)
				abusers.Wait()
			}()
			exchanged := 0
			for running := true; running; exchanged++ {
				select {
				case <-done:
					running = false
				default:
				}
				payload := numbered(uint64(victimMagic)<<32 | uint64(exchanged))
				send(t, from, payload)
				b := make([]byte, 64)
				var md sockmeta.Metadata
				n, _, err := lab.victim.ReadMetadata(b, &md)
				if err != nil || string(b[:n]) != payload {
					t.Fatalf("%q, %v", b[:n], err)
				}
				wantNumbered(t, b[:n], &md)
			}
			if exchanged < 2 {
				t.Error("the victim did nothing meanwhile")
			}
		})
	}
	if after := memoryOfMaps(t, lab.attachment); after != before {
		t.Errorf("the maps take %d bytes, before %d", after, before)
	}
}

// memoryOfMaps sums up what the maps of the attachment's programs take. What is kept
// at sockets is not in it.
func memoryOfMaps(t *testing.T, a *bpf.Attachment) (sum uint64) {
	t.Helper()
	dir, err := os.Open(a.Cgroup())
	must(t, err)
	defer dir.Close()
	maps := make(map[ebpf.MapID]bool)
	for _, typ := range append([]ebpf.AttachType{ebpf.AttachCGroupInetEgress}, attachTypes...) {
		attached, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: typ})
		must(t, err)
		for _, p := range attached.Programs {
			prog, err := ebpf.NewProgramFromID(p.ID)
			must(t, err)
			info, err := prog.Info()
			must(t, errors.Join(err, prog.Close()))
			ids, _ := info.MapIDs()
			for _, id := range ids {
				maps[id] = true
			}
		}
	}
	for id := range maps {
		m, err := ebpf.NewMapFromID(id)
		must(t, err)
		info, err := m.Info()
		must(t, errors.Join(err, m.Close()))
		size, ok := info.Memlock()
		// Of what is kept at sockets, older kernels say 0.
		if !ok && info.Type != ebpf.SkStorage {
			t.Fatalf("map %s does not say its size", info.Name)
		}
		sum += size
	}
	if sum < uint64(a.Info().Slots)*uint64(unsafe.Sizeof(abi.Slot{})) {
		t.Fatalf("%d maps take %d bytes: the slots are not among them", len(maps), sum)
	}
	return sum
}

// ownOptions are those that applications set.
var ownOptions = []int{abi.OptEnable, abi.OptTxRecord, abi.OptTxSlots, abi.OptInfo, abi.OptSlot, 0, -1}

// abuseOptions sets all options to garbage, and to what is nearly right, on sockets
// of each kind, again and again.
func abuseOptions() error {
	random := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	var fds []int
	for _, typ := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			if err := bpf.EnableSocket(fd, 0); err != nil {
				return err
			}
			fds = append(fds, fd)
		}
	}
	limit, err := optmemMax()
	if err != nil {
		return err
	}
	value := make([]byte, maxOptlen)
	for round := range testutil.Scale(20_000) {
		size := random.IntN(400)
		if round%100 == 0 {
			size = random.IntN(len(value))
		}
		for i := range value[:size] {
			value[i] = byte(random.Uint32())
		}
		if size >= 8 && round&1 == 0 {
			// Of an ABI, version, length and format that there are.
			binary.NativeEndian.PutUint32(value, abi.ABI)
			if round&2 == 0 {
				copy(value, []byte{abi.RecordVersion, 64, byte(random.IntN(256)) &^ 3, byte(random.IntN(3))})
			}
		}
		fd := fds[random.IntN(len(fds))]
		opt := ownOptions[random.IntN(len(ownOptions))]
		switch errno := rawSetsockopt(uintptr(fd), abi.SOL_BPF, opt, value[:size]); errno {
		case 0, unix.EINVAL, unix.EMSGSIZE, unix.ENOPROTOOPT, unix.EOPNOTSUPP:
		default:
			return fmt.Errorf("option %d, % x: %w", opt, value[:min(size, 16)], errno)
		}
	}
	for _, fd := range fds {
		m, err := netlab.SocketMemInfo(fd)
		if err != nil {
			return err
		}
		if used := m.Optmem; used == 0 || used > socketMemory || used > limit {
			return fmt.Errorf("a socket takes %d bytes, want %d at most, and the limit is %d", used, socketMemory, limit)
		}
		// It still is a socket that opted in.
		if _, err := bpf.SocketInfo(fd); err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

func optmemMax() (uint32, error) {
	b, err := os.ReadFile("/proc/sys/net/core/optmem_max")
	if errors.Is(err, os.ErrNotExist) {
		// Older kernels show it in the first network namespace alone.
		return 1 << 31, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	return uint32(n), err
}

// abuseSockets makes as many sockets as it may, all of which opt in, have transmit
// slots or a record, and receive.
func abuseSockets() error {
	sockets := testutil.Scale(2000)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(sockets) + 64, Max: uint64(sockets) + 64}); err != nil {
		// It needs no privilege to lower the limit.
		return os.NewSyscallError("setrlimit", err)
	}
	var slots [2]abi.TxSlot
	request := binary.NativeEndian.AppendUint32(nil, abi.ABI)
	request = binary.NativeEndian.AppendUint32(request, 1)
	request = binary.NativeEndian.AppendUint64(request, uint64(uintptr(unsafe.Pointer(&slots[0]))))
	var md sockmeta.Metadata
	md.SetPriority(1)
	record, err := md.MarshalBinary()
	if err != nil {
		return err
	}
	for i := range sockets {
		typ, opt, value := unix.SOCK_DGRAM, abi.OptTxSlots, request
		if i&1 != 0 {
			typ, opt, value = unix.SOCK_STREAM, abi.OptTxRecord, record
		}
		fd, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0)
		if err == unix.EMFILE {
			break
		}
		if err != nil {
			return err
		}
		if err := bpf.EnableSocket(fd, 0); err != nil {
			return err
		}
		for range 4 {
			if errno := rawSetsockopt(uintptr(fd), abi.SOL_BPF, opt, value); errno != 0 {
				return fmt.Errorf("option %d: %w", opt, errno)
			}
		}
		m, err := netlab.SocketMemInfo(fd)
		if err != nil {
			return err
		}
		if m.Optmem > socketMemory {
			return fmt.Errorf("a socket takes %d bytes", m.Optmem)
		}
	}
	return nil
}

// TestAbuseOverrun has another user fill the slots by sending to a socket of his own
// that he does not read. What waits for the victim loses its record, and never gets
// another.
func TestAbuseOverrun(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := newIsolationLab(t, isolationSlots)
	from := dialUDP(t, lab.Client, nil, lab.victim.LocalAddr().(*net.UDPAddr))
	const waiting = 4
	must(t, onEachCPU(func() error {
		for i := range waiting {
			if _, err := from.Write([]byte(numbered(uint64(victimMagic)<<32 | uint64(i)))); err != nil {
				return err
			}
		}
		return nil
	}))
	out, err := testutil.RunChild(t, "abuseSlots", testutil.ChildOptions{UID: nobody, GID: nobody, NoNewPrivs: true, Netns: lab.Server})
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	read, lost := 0, 0
	must(t, lab.victim.SetReadDeadline(time.Now().Add(time.Second)))
	for {
		b := make([]byte, 64)
		var md sockmeta.Metadata
		n, _, err := lab.victim.ReadMetadata(b, &md)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		read++
		switch {
		case errors.Is(err, sockmeta.ErrOverrun) && md == (sockmeta.Metadata{}):
			lost++
		case err == nil:
			wantNumbered(t, b[:n], &md)
		default:
			t.Fatal(err)
		}
	}
	want := read
	if native() {
		want = 0
	}
	if read == 0 || lost != want {
		t.Errorf("%d datagrams, %d lost their records, want %d", read, lost, want)
	}
	// It is over with the flood.
	send(t, from, numbered(1))
	must(t, lab.victim.SetReadDeadline(time.Now().Add(udpPatience)))
	b := make([]byte, 64)
	var md sockmeta.Metadata
	n, _, err := lab.victim.ReadMetadata(b, &md)
	must(t, err)
	wantNumbered(t, b[:n], &md)
}

func abuseSlots() error {
	c, send, err := loopback()
	if err != nil {
		return err
	}
	defer c.Close()
	return onEachCPU(func() error {
		for range 4 * isolationSlots {
			if err := send("flood"); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestAbuseHandshakes has another host open many connections half way, to a listener
// of another user's, while the victim's are opened.
func TestAbuseHandshakes(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := newTCPLab(t)
	victim := lab.listen(sockmeta.ListenConfig{})
	var other *sockmeta.TCPListener
	must(t, lab.Server.Do(func() (err error) {
		other, err = sockmeta.ListenTCP("tcp4", &net.TCPAddr{Port: tcpPort + 1})
		return err
	}))
	defer other.Close()
	must(t, other.Support().Err())
	var raw int
	must(t, lab.Client.Do(func() (err error) {
		raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	}))
	defer unix.Close(raw)

	// Twice as many as sockmeta_handshakes holds, few enough at a time that the
	// devices' queues take them.
	const flood, wave = 2 * 4096, 512
	opened, lost := 0, 0
	for sent := 0; sent < flood; sent += wave {
		done := make(chan error, 1)
		go func() { done <- floodSyns(raw, lab.ClientAddr4, lab.ServerAddr4, uint16(1024+sent), tcpPort+1, wave) }()
		client := lab.dial(lab.ServerAddr4)
		c := lab.accept(victim)
		md, err := c.OpeningMetadata()
		opened++
		if errors.Is(err, sockmeta.ErrNoMetadata) {
			lost++
		} else {
			packetID(t, md, err)
		}
		must1(t)(client.Write([]byte("hello")))
		read(t, c, "hello")
		md, err = c.Metadata()
		packetID(t, md, err)
		must(t, c.Close())
		must(t, client.Close())
		must(t, <-done)
	}
	t.Logf("%d connections opened during the flood, %d without the record of the opening segment", opened, lost)
}

// firstSyn is the sequence number of the first of them.
const firstSyn = 7919

// floodSyns sends the first segments of connections, each from another port with
// another sequence number.
func floodSyns(raw int, from, to netip.Addr, fromPort, port uint16, count int) error {
	dst := &unix.SockaddrInet4{Addr: to.As4()}
	for i := range count {
		th := make([]byte, 20)
		binary.BigEndian.PutUint16(th, fromPort+uint16(i))
		binary.BigEndian.PutUint16(th[2:], port)
		binary.BigEndian.PutUint32(th[4:], uint32(i+1)*firstSyn)
		th[12], th[13] = 5<<4, 2 // SYN
		binary.BigEndian.PutUint16(th[14:], 1024)
		pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), []byte{0, unix.IPPROTO_TCP, 0, byte(len(th))}, th)
		var sum uint32
		for j := 0; j < len(pseudo); j += 2 {
			sum += uint32(binary.BigEndian.Uint16(pseudo[j:]))
		}
		sum = sum>>16 + sum&0xffff
		sum += sum >> 16
		binary.BigEndian.PutUint16(th[16:], ^uint16(sum))
		if err := unix.Sendto(raw, th, 0, dst); err != nil && err != unix.ENOBUFS {
			return err
		}
	}
	return nil
}
