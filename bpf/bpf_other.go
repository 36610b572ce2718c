// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package bpf

import (
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

var errOS = fmt.Errorf("%w on %s: needs Linux", ErrNotSupported, runtime.GOOS)

// Slots is the receive map of an attachment.
type Slots struct{}

// Read returns an error that is ErrNotSupported.
func (*Slots) Read(uint64, uint64, *abi.Record) (uint32, error) { return 0, errOS }

// Touch does nothing.
func (*Slots) Touch(uint64) {}

// Timestamping returns an error that is ErrNotSupported.
func (*Slots) Timestamping(uint64, uint64) (uint32, error) { return 0, errOS }

// EnableSocket returns an error that is ErrNotSupported.
func EnableSocket(int, uint32) error { return errOS }

// EnableSocketOf returns an error that is ErrNotSupported.
func EnableSocketOf(int, uint32, uint64) error { return errOS }

// AskSocket returns an error that is ErrNotSupported.
func AskSocket(int, uint64) error { return errOS }

// EnableSocketCmsg returns an error that is ErrNotSupported.
func EnableSocketCmsg(int, uint32) error { return errOS }

// SocketInfo returns an error that is ErrNotSupported.
func SocketInfo(int) (Info, error) { return Info{}, errOS }

// SocketRecord returns an error that is ErrNotSupported.
func SocketRecord(int, int, *abi.Record) error { return errOS }

// SocketSlot returns an error that is ErrNotSupported.
func SocketSlot(int, uint64, *abi.Record) (uint32, error) { return 0, errOS }

// SocketID returns an error that is ErrNotSupported.
func SocketID(int, Info) (uint64, error) { return 0, errOS }

// SocketTxInfo returns an error that is ErrNotSupported.
func SocketTxInfo(int) (abi.TxInfo, error) { return abi.TxInfo{}, errOS }

// SetSocketRecord returns an error that is ErrNotSupported.
func SetSocketRecord(int, []byte) error { return errOS }

// EnableTxTime returns an error that is ErrNotSupported.
func EnableTxTime(int) error { return errOS }

// CheckTxClock returns an error that is ErrNotSupported.
func CheckTxClock(*abi.TxInfo) error { return errOS }

// TxSlots are the transmit slots of this process.
type TxSlots struct{}

// ProcessTxSlots returns an error that is ErrNotSupported.
func ProcessTxSlots() (*TxSlots, error) { return nil, errOS }

// Take returns false.
func (*TxSlots) Take() (int, bool) { return 0, false }

// Epoch returns 0.
func (*TxSlots) Epoch() uint64 { return 0 }

// Began returns 0.
func (*TxSlots) Began(int) uint64 { return 0 }

// Fill returns 0.
func (*TxSlots) Fill(int, *abi.TxInfo, *abi.Record) uint64 { return 0 }

// Release does nothing.
func (*TxSlots) Release(int) {}

// Register returns an error that is ErrNotSupported.
func (*TxSlots) Register(int) (abi.TxInfo, error) { return abi.TxInfo{}, errOS }

// FindSlots returns an error that is ErrNotSupported.
func FindSlots(Info, string) (*Slots, error) { return nil, errOS }

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

// Native returns an error that is ErrNotSupported.
func (*Attachment) Native() error { return errOS }

// Slots returns nil.
func (*Attachment) Slots() *Slots { return nil }

// Close does nothing.
func (*Attachment) Close() error { return nil }

// Counts returns an error that is ErrNotSupported.
func (*Attachment) Counts() (Counts, error) { return Counts{}, errOS }

// Sockets returns an error that is ErrNotSupported.
func (*Attachment) Sockets() (Sockets, error) { return Sockets{}, errOS }

// A Local lets metadata through to sockets of this host.
type Local struct{}

// AttachLocal returns an error that is ErrNotSupported.
func (*Attachment) AttachLocal(string) (*Local, error) { return nil, errOS }

// Close does nothing.
func (*Local) Close() error { return nil }

// Maps returns an error that is ErrNotSupported.
func (*Attachment) Maps() (map[string]*ebpf.Map, error) { return nil, errOS }

// GrantReceiveMap returns an error that is ErrNotSupported.
func (*Attachment) GrantReceiveMap(Grant) error { return errOS }

// RevokeReceiveMap returns an error that is ErrNotSupported.
func RevokeReceiveMap(string) error { return errOS }

// PinMaps returns an error that is ErrNotSupported.
func (*Attachment) PinMaps(string) error { return errOS }

// UnpinMaps returns an error that is ErrNotSupported.
func UnpinMaps(string) error { return errOS }

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

func hostRecord() (abi.Host, error) { return abi.Host{}, errOS }
