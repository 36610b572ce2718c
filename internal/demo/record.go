// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"net/netip"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// A Record is what a packet knew, as far as the demos are concerned. The zero
// value of a field says that it did not know it. The names in JSON are those of
// sockmeta.Metadata.
type Record struct {
	PacketID  uint64 `json:"packet_id"`
	Ktime     uint64 `json:"ktime"`
	ServiceID uint32 `json:"service_id"`
	TraceID   string `json:"trace_id"` // in hexadecimal
	Hash      uint32 `json:"hash"`
	IfIndex   int    `json:"ifindex"`
	Error     string `json:"error"`
}

// NewRecord takes what a metadata call returned.
func NewRecord(md sockmeta.Metadata, err error) Record {
	if err == nil {
		err = md.Err()
	}
	if err != nil {
		return Record{Error: err.Error()}
	}
	var r Record
	r.PacketID, _ = md.Uint64(sockmeta.KeyPacketID)
	r.Ktime, _ = md.Uint64(sockmeta.KeyKtime)
	r.ServiceID, _ = md.Uint32(sockmeta.KeyServiceID)
	if trace, ok := md.Bytes(sockmeta.KeyTraceID); ok {
		r.TraceID = fmt.Sprintf("%#x", trace)
	}
	r.Hash, _ = md.Hash()
	r.IfIndex, _ = md.IfIndex()
	return r
}

// NewSender takes what a metadata call returned, and of it what the packet's
// sender gave.
func NewSender(md sockmeta.Metadata, err error) Record {
	var sender sockmeta.Metadata
	if err == nil && !md.Sender(&sender) {
		return Record{Error: "nothing from the sender"}
	}
	return NewRecord(sender, err)
}

// The producer counts packets on each CPU by itself.
func (r Record) cpu() uint16   { return uint16(r.PacketID >> 48) }
func (r Record) count() uint64 { return r.PacketID & (1<<48 - 1) }

// names says that r has one of the ids at least, and no other.
func (r Record) names(packet uint64, trace string) bool {
	return (r.PacketID != 0 || r.TraceID != "") &&
		(r.PacketID == 0 || r.PacketID == packet) && (r.TraceID == "" || r.TraceID == trace)
}

// Sent is a message of the client's. Times are those of Now.
type Sent struct {
	Message string // no other is the same
	From    netip.AddrPort
	Port    uint16 // of the server
	TraceID string // that the client gave it

	Dialed uint64 // before the socket was connected
	Start  uint64 // before the message was sent
	End    uint64 // after it was answered

	// Reply is what the server gave the answer, as the client saw it.
	Reply Record
}

// Seen is a message as the server saw it. What one of the server's sockets saw
// is in the order in which it did.
type Seen struct {
	Message string
	From    netip.AddrPort
	Port    uint16 // of the server
	Bytes   int
	At      uint64 // as Now; when the application had it
	Record  Record
	// Opening is the record of the segment that opened the connection, nil
	// for datagrams.
	Opening *Record

	// Sender is what the client gave the message.
	Sender Record
	// Reply is what the server gave the answer.
	Reply Record
}
