// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// streamChunk is what is written and read at a time.
	streamChunk = 64 << 10
	// streamChunks is how many of them are timed at once.
	streamChunks = 64
	// streamBuffer is the size of the sockets' buffers. Left to the kernel it
	// differs from connection to connection, and the throughput with it.
	streamBuffer = 200 << 10
)

// tcpStream compares the throughput of connections: read by the application, and
// handed on by splice, which has to find the net.TCPConn in ours. Without a
// producer segments come as the kernel merges them; with one, each has metadata of
// its own, and is looked at by itself.
func tcpStream(m *meter) ([]Row, error) {
	bare, err := m.bare()
	if err != nil {
		return nil, err
	}
	produced, err := m.produced()
	if err != nil {
		return nil, err
	}
	var contenders []contender
	for _, side := range []struct {
		name string
		make func(name string) (contender, error)
	}{
		{"read plain", bare.reads(false)}, {"read opted", bare.reads(true)}, {"read again", bare.reads(false)},
		{"splice plain", bare.splices(false)}, {"splice opted", bare.splices(true)},
		{"segments plain", produced.reads(false)}, {"segments opted", produced.reads(true)},
	} {
		c, err := side.make(side.name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", side.name, err)
		}
		contenders = append(contenders, c)
	}
	s, err := m.inTurn(6, contenders...)
	if err != nil {
		return nil, err
	}
	const opted = ", opted in"
	return []Row{
		s.faster("tcp-stream/read", "TCP stream, read"+opted, "net.TCPConn", atLeast(0.98), "read opted", "read plain"),
		s.faster("tcp-stream/splice", "TCP stream, io.Copy by splice"+opted, "net.TCPConn", atLeast(0.98),
			"splice opted", "splice plain"),
		s.faster("tcp-stream/segments", "TCP stream, read"+opted+", segments with their own",
			"net.TCPConn behind the same producer", nil, "segments opted", "segments plain"),
		s.faster("tcp-stream/itself", "TCP stream, read, plain", itself, nil, "read again", "read plain"),
	}, nil
}

// streamConn is what *net.TCPConn and *sockmeta.TCPConn have in common here.
type streamConn interface {
	net.Conn
	SetReadBuffer(bytes int) error
}

// stream makes a connection.
func (l *lab) stream(opted bool) (client *net.TCPConn, server net.Conn, err error) {
	var c streamConn
	if opted {
		client, c, err = asStream(l.tcp())
	} else {
		client, c, err = asStream(l.plainTCP(nil))
	}
	if err != nil {
		return nil, nil, err
	}
	return client, c, errors.Join(client.SetWriteBuffer(streamBuffer), c.SetReadBuffer(streamBuffer))
}

func asStream[C streamConn](client *net.TCPConn, server C, err error) (*net.TCPConn, streamConn, error) {
	return client, server, err
}

// reads returns a function that makes a contender which reads a stream. Its
// operations are chunks.
func (l *lab) reads(opted bool) func(name string) (contender, error) {
	return func(name string) (contender, error) {
		client, server, err := l.stream(opted)
		if err != nil {
			return contender{}, err
		}
		buf := make([]byte, streamChunk)
		return contender{name: name, ops: streamChunks, prepare: deadline(server), batch: l.streaming(client, func() error {
			for left := streamChunks * streamChunk; left > 0; {
				n, err := server.Read(buf[:min(len(buf), left)])
				if err != nil {
					return err
				}
				left -= n
			}
			return nil
		})}, nil
	}
}

func deadline(c net.Conn) func() error {
	return func() error { return c.SetReadDeadline(time.Now().Add(10 * time.Second)) }
}

// streaming returns a batch: what the client sends while read reads it.
func (l *lab) streaming(client *net.TCPConn, read func() error) func() error {
	chunk := make([]byte, streamChunk)
	send := repeat(streamChunks, func() error {
		_, err := client.Write(chunk)
		return err
	})
	return func() error {
		sent := make(chan error, 1)
		go func() { sent <- send() }()
		err := read()
		if err != nil {
			// Nobody reads what the sender waits to send.
			_ = client.SetWriteDeadline(time.Now())
		}
		return errors.Join(err, <-sent)
	}
}

// splices returns a function that makes a contender which hands a stream on, by
// io.Copy, to a connection whose other end throws it away.
func (l *lab) splices(opted bool) func(name string) (contender, error) {
	return func(name string) (contender, error) {
		client, server, err := l.stream(opted)
		if err != nil {
			return contender{}, err
		}
		// The way on is a connection of the server's own host.
		on, end, err := l.onward()
		if err != nil {
			return contender{}, err
		}
		copied := make(chan error, 1)
		go func() {
			_, err := io.Copy(on, server)
			copied <- err
		}()
		l.m.atEnd(func() error {
			if err := client.CloseWrite(); err != nil {
				return err
			}
			select {
			case err := <-copied:
				return err
			case <-time.After(10 * time.Second):
				return os.ErrDeadlineExceeded
			}
		})
		drop, err := dropper(end)
		if err != nil {
			return contender{}, err
		}
		return contender{name: name, ops: streamChunks, prepare: deadline(end), batch: l.streaming(client, func() error {
			return drop(streamChunks * streamChunk)
		})}, nil
	}
}

// onward makes a connection within the server's namespace.
func (l *lab) onward() (from, to *net.TCPConn, err error) {
	listener, err := l.plainListenTCP(nil, l.address())
	if err != nil {
		return nil, nil, err
	}
	err = l.Server.Do(func() error {
		var d net.Dialer
		c, err := d.DialContext(context.Background(), "tcp4", listener.Addr().String())
		if err == nil {
			from = c.(*net.TCPConn)
			l.m.atEnd(from.Close)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if to, err = listener.AcceptTCP(); err != nil {
		return nil, nil, err
	}
	l.m.atEnd(to.Close)
	return from, to, errors.Join(from.SetWriteBuffer(streamBuffer), to.SetReadBuffer(streamBuffer))
}

// dropper returns a function that takes n bytes from a connection without copying
// them (MSG_TRUNC, tcp(7)).
func dropper(c *net.TCPConn) (func(n int) error, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 1<<20)
	return func(n int) error {
		for n > 0 {
			var got int
			var err error
			rerr := rc.Read(func(fd uintptr) bool {
				got, _, err = unix.Recvfrom(int(fd), buf[:min(len(buf), n)], unix.MSG_TRUNC|unix.MSG_DONTWAIT)
				return err != unix.EAGAIN
			})
			switch {
			case rerr != nil:
				return rerr
			case err != nil:
				return os.NewSyscallError("recvfrom", err)
			case got == 0:
				return io.ErrUnexpectedEOF
			}
			n -= got
		}
		return nil
	}, nil
}
