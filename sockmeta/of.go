// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"fmt"
	"net"

	"github.com/sockmeta/sockmeta-go/conn"
)

// MetadataOf is TCPConn.Metadata for servers that insist on package net's own types: c is
// a *net.TCPConn that has opted in (ListenConfig.PlainConns), a *TCPConn, or one that
// wraps either, as for FromConn. It takes two system calls, TCPConn.Metadata one.
func MetadataOf(c net.Conn) (Metadata, error) {
	t, err := tcpOf(c)
	if err != nil {
		return Metadata{}, err
	}
	return t.Metadata()
}

// OpeningMetadataOf is TCPConn.OpeningMetadata for what MetadataOf takes.
func OpeningMetadataOf(c net.Conn) (Metadata, error) {
	t, err := tcpOf(c)
	if err != nil {
		return Metadata{}, err
	}
	return t.OpeningMetadata()
}

// LatestMetadataOf is TCPConn.LatestMetadata for what MetadataOf takes.
func LatestMetadataOf(c net.Conn) (Metadata, error) {
	t, err := tcpOf(c)
	if err != nil {
		return Metadata{}, err
	}
	return t.LatestMetadata()
}

func tcpOf(c net.Conn) (*TCPConn, error) {
	switch t := lowest(c).(type) {
	case *TCPConn:
		return t, nil
	case *net.TCPConn:
		return conn.Bare(t), nil
	}
	return nil, fmt.Errorf("%w: there is no TCP connection below %T", ErrNotSupported, c)
}
