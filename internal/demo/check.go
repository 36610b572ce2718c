// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"fmt"
	"net/netip"
)

// A socket of the server's. One for datagrams has no peer.
type socket struct {
	peer netip.AddrPort
	port uint16
}

func socketOf(s Seen) socket {
	if s.Opening == nil {
		return socket{port: s.Port}
	}
	return socket{s.From, s.Port}
}

// The packets that a socket gets from one CPU have ids that increase.
type flow struct {
	socket
	cpu uint16
}

// check returns an error for everything that the server should not have seen so,
// by the number of the row in the table. crossing says that what one side gave
// its packets crosses to the other, and timed that packets have a ktime.
func check(sent []Sent, seen []Seen, services map[uint16]uint32, ifindex int, crossing, timed bool) error {
	var (
		errs     []error
		pending  = make(map[string]Sent, len(sent))
		owner    = make(map[uint64]string) // of packet ids
		last     = make(map[flow]uint64)   // packet id
		openings = make(map[socket]Record)
		traces   = make(map[string]string) // message by trace id
	)
	for _, s := range sent {
		pending[s.Message] = s
	}
	for i, row := range seen {
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("row %d: %s", i+1, fmt.Sprintf(format, args...)))
		}
		// verify checks the record of a packet that was sent and received
		// within a time.
		verify := func(name string, r Record, from, to uint64) {
			if r.Error != "" {
				fail("%s: %s", name, r.Error)
				return
			}
			if want := services[row.Port]; r.ServiceID != want {
				fail("%s: service id %d, want port %d's, %d", name, r.ServiceID, row.Port, want)
			}
			if r.IfIndex != ifindex {
				fail("%s: ifindex %d, want the server's interface, %d", name, r.IfIndex, ifindex)
			}
			if !timed && r.Ktime != 0 {
				fail("%s: ktime %d, want none", name, r.Ktime)
			} else if timed && (r.Ktime < from || r.Ktime > to) {
				fail("%s: ktime %d, want one from %d to %d", name, r.Ktime, from, to)
			}
			if r.count() == 0 {
				fail("%s: packet id %d, want a count in its lower 48 bits", name, r.PacketID)
				return
			}
			if other, taken := owner[r.PacketID]; taken {
				fail("%s: packet id %d is that of %s, too", name, r.PacketID, other)
				return
			}
			owner[r.PacketID] = fmt.Sprintf("row %d's %s", i+1, name)
			f := flow{socketOf(row), r.cpu()}
			if r.PacketID <= last[f] {
				fail("%s: packet id %d comes after %d on the same CPU", name, r.PacketID, last[f])
			}
			last[f] = r.PacketID
		}
		// verifyCrossing checks what client and server gave each other.
		verifyCrossing := func(s Sent) {
			if other, taken := traces[s.TraceID]; s.TraceID == "" {
				fail("sent without a trace id")
			} else if taken {
				fail("trace id %q is that of message %.20q, too", s.TraceID, other)
			}
			traces[s.TraceID] = s.Message
			if want := (Record{TraceID: s.TraceID}); row.Sender != want {
				fail("sender: %+v, want %+v", row.Sender, want)
			}
			// Which values an answer takes back is the server's business,
			// as long as they tell whose answer it is.
			r := row.Reply
			if !r.names(row.Record.PacketID, s.TraceID) || r.ServiceID != row.Record.ServiceID {
				fail("reply: %+v, want ids of the message", r)
			}
			if s.Reply != r {
				fail("reply: the client saw %+v, want %+v", s.Reply, r)
			}
		}

		s, ok := pending[row.Message]
		if !ok {
			fail("message %.20q was not sent, or was seen before", row.Message)
			continue
		}
		delete(pending, row.Message)
		if row.From != s.From {
			fail("from %s, want %s", row.From, s.From)
		}
		if row.Port != s.Port {
			fail("to port %d, want %d", row.Port, s.Port)
		}
		if row.Opening != nil {
			if before, known := openings[socketOf(row)]; !known {
				openings[socketOf(row)] = *row.Opening
				until := row.At
				if row.Record.Error == "" {
					until = row.Record.Ktime
				}
				verify("opening", *row.Opening, s.Dialed, until)
			} else if before != *row.Opening {
				fail("opening: packet id %d, and %d earlier on the connection", row.Opening.PacketID, before.PacketID)
			}
		}
		verify("message", row.Record, s.Start, min(s.End, row.At))
		if crossing {
			verifyCrossing(s)
		}
	}
	for _, s := range sent {
		if _, ok := pending[s.Message]; ok {
			errs = append(errs, fmt.Errorf("message %.20q from %s was sent and not seen", s.Message, s.From))
		}
	}
	if len(sent) == 0 {
		errs = append(errs, errors.New("nothing was sent"))
	}
	return errors.Join(errs...)
}
