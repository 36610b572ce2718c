// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// A socket is what a connection knows of its metadata.
type socket struct {
	raw syscall.RawConn
	// instance is the attachment that has the socket.
	instance uint64
	// carrier brings the records of datagrams; nil for TCP.
	carrier carrier
	tier    Tier
	// mapped says that the receive map is mapped, unmapped why it is not.
	mapped   bool
	unmapped error
	err      error // not nil: why there is no metadata
}

// What becomes of a socket that opted in.
var (
	errDetached = fmt.Errorf("%w any more: the programs that the socket opted in to were detached", ErrNotSupported)
	errMoved    = fmt.Errorf("%w: it has opted in to other programs since", errDetached)
	errUnseated = fmt.Errorf("%w for this connection: when it came too many sockets had metadata, or it was reset before it was accepted", ErrNotSupported)
)

// attached returns nil, or why the programs that the socket opted in to do not have it.
func (s *socket) attached() error {
	q := queries.Get().(*query)
	defer queries.Put(q)
	q.instance = s.instance
	if err := s.raw.Control(q.askAttached); err != nil {
		return nil
	}
	return q.err
}

// findInstance finds the attachment that has the socket.
func (s *socket) findInstance() (err error) {
	cerr := s.raw.Control(func(fd uintptr) {
		var info bpf.Info
		if info, err = bpf.SocketInfo(int(fd)); err == nil {
			s.instance, s.tier = info.Instance, tierOf(info.Features)
		}
	})
	if err == nil {
		err = cerr
	}
	if err != nil && !errors.Is(err, ErrNotSupported) {
		err = fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	return err
}

// tierOf returns the tier of an attachment with these features.
func tierOf(features uint32) Tier {
	switch {
	case features&abi.FeatureNative != 0:
		return TierNative
	case features&abi.FeatureTracing != 0:
		return TierTracing
	}
	return TierHandle
}

// lost says why the programs did not answer.
func (s *socket) lost() error {
	if err := s.attached(); err != nil {
		return err
	}
	return errDetached
}

// attached is socket.attached for a descriptor.
func attached(fd int, instance uint64) error {
	info, err := bpf.SocketInfo(fd)
	switch {
	case err == nil && info.Instance == instance:
		return nil
	case err == nil:
		return errMoved
	case !errors.Is(err, ErrNotSupported):
		return nil
	}
	err = bpf.AskSocket(fd, instance)
	switch {
	case err == nil:
		return errUnseated
	case errors.Is(err, bpf.ErrTooManySockets):
		return err
	}
	return errDetached
}

// unusable is the socket of what is no connection: a zero value, or nil.
var unusable = socket{err: fmt.Errorf("%w: no connection: %w", ErrNotSupported, syscall.EINVAL)}

// valid returns why there is no metadata from the beginning.
func (s *socket) valid() error {
	if s.err == nil && s.raw == nil {
		return unusable.err
	}
	return s.err
}

func (s *socket) support() Support {
	tracing := Missing{TierTracing, fmt.Errorf("%w: whoever attached the programs did not ask for it (bpf.Options.Tracing)", ErrNotSupported)}
	native := Missing{TierNative, nativeMissing()}
	err := s.valid()
	if err == nil {
		err = s.attached()
	}
	if err != nil {
		return Support{Missing: []Missing{{TierHandle, err}, tracing, native}}
	}
	have := Support{Tier: s.tier, Mapped: s.mapped, Unmapped: s.unmapped}
	for _, better := range []Missing{tracing, native} {
		if better.Tier > have.Tier {
			have.Missing = append(have.Missing, better)
		}
	}
	return have
}

// Prepare opts a socket in to metadata before it is bound or connected, so
// that nothing it receives comes without. It is for the Control functions of
// net.ListenConfig and net.Dialer: net hands on the sockets that it makes
// later, to NewUDPConn, NewTCPConn and NewTCPListener, which opt in those that
// are not. The error says why there will be no metadata; the socket works all
// the same.
//
// network is what Control gets: Prepare leaves others than UDP and TCP alone.
func Prepare(network string, rc syscall.RawConn) error {
	switch network {
	case "udp", "udp4", "udp6":
		return prepare(rc, true, "").err
	case "tcp", "tcp4", "tcp6":
		return prepare(rc, false, "").err
	}
	return fmt.Errorf("%w on %s sockets", ErrNotSupported, network)
}

func prepare(rc syscall.RawConn, udp bool, receiveMap string) socket {
	s := socket{raw: rc}
	if err := rc.Control(func(fd uintptr) { s.err = s.optIn(int(fd), udp, receiveMap) }); err != nil {
		s.err = err
	}
	if s.err != nil && !errors.Is(s.err, ErrNotSupported) {
		s.err = fmt.Errorf("%w: %w", ErrNotSupported, s.err)
	}
	return s
}

func prepareConn(c syscall.Conn, udp bool, receiveMap string) socket {
	rc, err := c.SyscallConn()
	if err != nil {
		return socket{err: fmt.Errorf("%w: %w", ErrNotSupported, err)}
	}
	return prepare(rc, udp, receiveMap)
}

// opError gives a metadata error the form of package net's. Op is what the
// user called, as net.OpError wants it.
func opError(op string, c net.Conn, err error) error {
	var already *net.OpError
	if err == nil || errors.As(err, &already) {
		return err
	}
	local := c.LocalAddr()
	if local == nil {
		return err
	}
	return &net.OpError{Op: op, Net: local.Network(), Source: local, Addr: c.RemoteAddr(), Err: err}
}
