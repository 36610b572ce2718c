// SPDX-License-Identifier: Apache-2.0

// Command client32 uses sockets over loopback, in a cgroup that others have attached
// to. The tests build it for a 32-bit architecture: 64-bit kernels do not show
// programs the socket options of such processes, so that its sockets are plain ones.
// It ends with an error as soon as one is not. With the argument receive it has a
// socket that another process opted in.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const (
	rounds   = 20
	patience = 20 * time.Second
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "receive" {
		if err := receive(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "client32: receive:", err)
			os.Exit(1)
		}
		fmt.Println(8*unsafe.Sizeof(uintptr(0)), "bits")
		return
	}
	for name, f := range map[string]func() error{
		"udp4":  func() error { return datagrams("udp4", "127.0.0.1:0") },
		"udp6":  func() error { return datagrams("udp6", "[::1]:0") },
		"tcp4":  func() error { return connection("127.0.0.1:0") },
		"tcp6":  func() error { return connection("[::1]:0") },
		"times": times,
	} {
		if err := f(); err != nil {
			fmt.Fprintf(os.Stderr, "client32: %s: %v\n", name, err)
			os.Exit(1)
		}
	}
	fmt.Println(8*unsafe.Sizeof(uintptr(0)), "bits")
}

// receive receives datagrams by the socket that it was given, which gets records as
// control messages. Each payload begins with the number that its record has, and they
// go up from 0. The buffer has room for the record, and is longer each time, up to
// where it has room for nothing else, and then too short.
func receive(count string) error {
	const socket, key = 4, 16
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	whole := 0
	for i := range n {
		b, oob := make([]byte, 64), make([]byte, 512)
		if whole != 0 {
			oob = oob[:whole+n/2-i]
		}
		size, oobn, flags, _, err := unix.Recvmsg(socket, b, oob, 0)
		if err != nil {
			return err
		}
		if size < 8 || binary.NativeEndian.Uint64(b) != uint64(i) {
			return fmt.Errorf("payload %x", b[:size])
		}
		if whole != 0 && len(oob) < whole {
			if flags != unix.MSG_CTRUNC || oobn != 0 {
				return fmt.Errorf("%d of %d bytes, flags %#x", oobn, len(oob), flags)
			}
			continue
		}
		data, ok := cmsg.Find(oob[:oobn], cmsg.SOL_BPF, cmsg.SCM_RECORD)
		if !ok || flags != 0 {
			return fmt.Errorf("control messages %x, flags %#x", oob[:oobn], flags)
		}
		var md cmsg.Metadata
		if err := md.Decode(data); err != nil {
			return err
		}
		if id, ok := md.Uint64(key); !ok || id != uint64(i) {
			return fmt.Errorf("datagram %d has the record of %d, %v", i, id, ok)
		}
		whole = cmsg.Len(len(data))
	}
	return nil
}

// unsupported says what is wrong with an error that is to say why there is no
// metadata.
func unsupported(err error) error {
	if !errors.Is(err, sockmeta.ErrNotSupported) || !strings.Contains(err.Error(), "32-bit process") {
		return fmt.Errorf("error is %w", err)
	}
	return nil
}

func listenUDP(network, addr string) (*sockmeta.UDPConn, error) {
	pc, err := sockmeta.ListenPacket(network, addr)
	if err != nil {
		return nil, err
	}
	c := pc.(*sockmeta.UDPConn)
	if err := unsupported(c.Support().Err()); err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

func datagrams(network, addr string) error {
	c, err := listenUDP(network, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	to := c.LocalAddr().(*net.UDPAddr).AddrPort()
	b := make([]byte, 64)
	for i := range rounds {
		payload := fmt.Sprintf("payload %d", i)
		var md sockmeta.Metadata
		md.SetPriority(1)
		if n, err := c.WriteMetadata([]byte(payload), &md, to); n != len(payload) {
			return fmt.Errorf("sent %d bytes: %w", n, err)
		} else if err := unsupported(err); err != nil {
			return err
		}
		n, from, err := c.ReadMetadata(b, &md)
		if string(b[:n]) != payload || from != to || md != (sockmeta.Metadata{}) {
			return fmt.Errorf("%q from %v, %v, %w", b[:n], from, md, err)
		}
		if err := unsupported(err); err != nil {
			return err
		}
	}
	return nil
}

func connection(addr string) error {
	l, err := sockmeta.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer l.Close()
	out, err := sockmeta.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		return err
	}
	defer in.Close()
	if err := in.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for i := range rounds {
		payload := fmt.Sprintf("payload %d", i)
		if _, err := io.WriteString(out, payload); err != nil {
			return err
		}
		b := make([]byte, len(payload))
		if _, err := io.ReadFull(in, b); err != nil || string(b) != payload {
			return fmt.Errorf("%q, %w", b, err)
		}
		if _, err := in.(*sockmeta.TCPConn).Metadata(); unsupported(err) != nil {
			return unsupported(err)
		}
	}
	return nil
}

// times asks for timestamps, in the layout of this architecture and in the one that
// does not end in 2038.
func times() error {
	for name, opt := range map[string]int{
		"old timeval": unix.SO_TIMESTAMP, "old timespec": unix.SO_TIMESTAMPNS,
		"new timeval": unix.SO_TIMESTAMP_NEW, "new timespec": unix.SO_TIMESTAMPNS_NEW,
		"old timestamping": unix.SO_TIMESTAMPING, "new timestamping": unix.SO_TIMESTAMPING_NEW,
	} {
		if err := timed(opt); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func timed(opt int) error {
	c, err := listenUDP("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer c.Close()
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	value := 1
	if opt == unix.SO_TIMESTAMPING || opt == unix.SO_TIMESTAMPING_NEW {
		value = unix.SOF_TIMESTAMPING_SOFTWARE | unix.SOF_TIMESTAMPING_RX_SOFTWARE
	}
	var serr error
	if err := rc.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, opt, value) }); err != nil || serr != nil {
		return errors.Join(err, serr)
	}
	found := false
	for range rounds {
		if _, err := c.WriteTo([]byte("payload"), c.LocalAddr()); err != nil {
			return err
		}
		oob := make([]byte, 256)
		n, oobn, flags, _, err := c.ReadMsgUDPAddrPort(make([]byte, 64), oob)
		if err != nil || n != len("payload") || flags != 0 {
			return fmt.Errorf("%d bytes, flags %#x, %w", n, flags, err)
		}
		data, ok := cmsg.Find(oob[:oobn], unix.SOL_SOCKET, opt)
		if !ok {
			// The kernel begins to take times soon after the first socket
			// that asks.
			time.Sleep(time.Millisecond)
			continue
		}
		found = true
		if ago := time.Since(firstTime(data, opt)); ago < 0 || ago > patience {
			return fmt.Errorf("time %x is %v ago", data, ago)
		}
	}
	if !found {
		return errors.New("no times")
	}
	return nil
}

// firstTime reads the first time in a message.
func firstTime(data []byte, opt int) time.Time {
	sec, fraction := int64(binary.NativeEndian.Uint32(data)), int64(binary.NativeEndian.Uint32(data[4:]))
	old := opt == unix.SO_TIMESTAMP || opt == unix.SO_TIMESTAMPNS || opt == unix.SO_TIMESTAMPING
	if !old || unsafe.Sizeof(uintptr(0)) == 8 {
		sec, fraction = int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:]))
	}
	if opt == unix.SO_TIMESTAMP || opt == unix.SO_TIMESTAMP_NEW {
		fraction *= 1000
	}
	return time.Unix(sec, fraction)
}
