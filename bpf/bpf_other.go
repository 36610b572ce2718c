// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package bpf

import (
	"fmt"
	"runtime"
)

var errOS = fmt.Errorf("%w on %s: needs Linux", ErrNotSupported, runtime.GOOS)

// Slots is the receive map of an attachment.
type Slots struct{}

// Read returns an error that is ErrNotSupported.
func (*Slots) Read(uint64, *[RecordWords]uint64) (uint32, error) { return 0, errOS }

// EnableSocket returns an error that is ErrNotSupported.
func EnableSocket(int, uint32) error { return errOS }

// SocketInfo returns an error that is ErrNotSupported.
func SocketInfo(int) (Info, error) { return Info{}, errOS }

// SocketRecord returns an error that is ErrNotSupported.
func SocketRecord(int, int, *[RecordWords]uint64) error { return errOS }

// SocketSlot returns an error that is ErrNotSupported.
func SocketSlot(int, uint64, *[RecordWords]uint64) (uint32, error) { return 0, errOS }

// FindSlots returns nil.
func FindSlots(Info) *Slots { return nil }

// An Attachment keeps the programs attached to a cgroup.
type Attachment struct{}

// Attach returns an error that is ErrNotSupported.
func Attach(Options) (*Attachment, error) { return nil, errOS }

// AttachOwn returns an error that is ErrNotSupported.
func AttachOwn() (*Attachment, error) { return nil, errOS }

// Cgroup returns "".
func (*Attachment) Cgroup() string { return "" }

// Shared returns false.
func (*Attachment) Shared() bool { return false }

// Info returns zeros.
func (*Attachment) Info() Info { return Info{} }

// Slots returns nil.
func (*Attachment) Slots() *Slots { return nil }

// Close does nothing.
func (*Attachment) Close() error { return nil }

// A Producer gives an interface's packets metadata.
type Producer struct{}

// AttachProducer returns an error that is ErrNotSupported.
func AttachProducer(string, ProducerOptions) (*Producer, error) { return nil, errOS }

// Generic returns false.
func (*Producer) Generic() bool { return false }

// SetService returns an error that is ErrNotSupported.
func (*Producer) SetService(uint16, uint32) error { return errOS }

// DeleteService returns an error that is ErrNotSupported.
func (*Producer) DeleteService(uint16) error { return errOS }

// Refused returns an error that is ErrNotSupported.
func (*Producer) Refused() (uint64, error) { return 0, errOS }

// Close does nothing.
func (*Producer) Close() error { return nil }
