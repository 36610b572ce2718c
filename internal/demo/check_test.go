// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

const (
	testIfIndex = 2
	testPort    = 80
	otherPort   = 81
)

var testServices = map[uint16]uint32{testPort: 1000, otherPort: 2000}

func id(cpu, count uint64) uint64 { return cpu<<48 | count }

type exchange struct {
	sent    []Sent
	seen    []Seen
	oneWay  bool
	untimed bool
}

func (e *exchange) check() error {
	return check(e.sent, e.seen, testServices, testIfIndex, !e.oneWay, !e.untimed)
}

// datagrams are three from one client and, to another port, one from another.
// Not all came to the same CPU. The replies take back what the producer wrote.
func datagrams() *exchange {
	a, b := netip.MustParseAddrPort("192.0.2.1:5000"), netip.MustParseAddrPort("[2001:db8::1]:5000")
	e := new(exchange)
	for i, d := range []struct {
		message string
		from    netip.AddrPort
		port    uint16
		id      uint64
	}{
		{"one", a, testPort, id(1, 11)},
		{"two", a, testPort, id(0, 1)},
		{"three", a, testPort, id(1, 13)},
		{"four", b, otherPort, id(1, 12)},
	} {
		start := uint64(1000 * (i + 1))
		trace := fmt.Sprintf("0x%032x", i+1)
		record := Record{PacketID: d.id, Ktime: start + 20, ServiceID: testServices[d.port], IfIndex: testIfIndex}
		reply := Record{PacketID: record.PacketID, Ktime: record.Ktime, ServiceID: record.ServiceID}
		e.sent = append(e.sent, Sent{
			Message: d.message, From: d.from, Port: d.port, TraceID: trace,
			Dialed: 100, Start: start, End: start + 100, Reply: reply,
		})
		e.seen = append(e.seen, Seen{
			Message: d.message, From: d.from, Port: d.port, Bytes: len(d.message), At: start + 50,
			Record: record, Sender: Record{TraceID: trace}, Reply: reply,
		})
	}
	return e
}

// messages are the datagrams as messages of two connections. The replies take back
// a trace id and a service id.
func messages() *exchange {
	e := datagrams()
	for i := range e.seen {
		row := &e.seen[i]
		row.Reply = Record{ServiceID: testServices[row.Port], TraceID: e.sent[i].TraceID}
		e.sent[i].Reply = row.Reply
		row.Opening = &Record{PacketID: id(1, 1), Ktime: 500, ServiceID: testServices[row.Port], IfIndex: testIfIndex}
		if row.Port == otherPort {
			row.Opening.PacketID = id(1, 2)
		}
	}
	return e
}

func TestCheckAccepts(t *testing.T) {
	if err := datagrams().check(); err != nil {
		t.Errorf("datagrams: %v", err)
	}
	if err := messages().check(); err != nil {
		t.Errorf("messages: %v", err)
	}

	// Connections to different ports may share the client's.
	e := messages()
	e.sent[3].From, e.seen[3].From = e.sent[0].From, e.seen[0].From
	if err := e.check(); err != nil {
		t.Errorf("shared client port: %v", err)
	}

	// Where nothing crosses, nothing of that counts.
	e = datagrams()
	e.oneWay = true
	for i := range e.sent {
		e.sent[i].Reply = Record{Error: "nothing"}
		e.seen[i].Sender = Record{Error: "nothing"}
	}
	if err := e.check(); err != nil {
		t.Errorf("one way: %v", err)
	}
}

func TestCheckRejects(t *testing.T) {
	for _, tt := range []struct {
		name  string
		from  func() *exchange
		spoil func(e *exchange)
		want  string
	}{
		{"nothing", datagrams, func(e *exchange) { *e = exchange{} },
			"nothing was sent"},
		{"lost", datagrams, func(e *exchange) { e.seen = e.seen[:3] },
			`message "four" from [2001:db8::1]:5000 was sent and not seen`},
		{"seen twice", datagrams, func(e *exchange) { e.seen = append(e.seen, e.seen[3]) },
			`row 5: message "four" was not sent, or was seen before`},
		{"not sent", datagrams, func(e *exchange) { e.seen[2].Message = "five" },
			`row 3: message "five" was not sent`},
		{"swapped records", datagrams, func(e *exchange) {
			e.seen[0].Record, e.seen[1].Record = e.seen[1].Record, e.seen[0].Record
		}, "row 1: message: ktime 2020, want one from 1000 to 1050"},
		{"sender", datagrams, func(e *exchange) { e.seen[2].From = e.seen[3].From },
			"row 3: from [2001:db8::1]:5000, want 192.0.2.1:5000"},
		{"port", datagrams, func(e *exchange) { e.seen[2].Port = otherPort },
			"row 3: to port 81, want 80"},
		{"error", datagrams, func(e *exchange) { e.seen[2].Record = Record{Error: "no metadata"} },
			"row 3: message: no metadata"},
		{"no service", datagrams, func(e *exchange) { e.seen[2].Record.ServiceID = 0 },
			"row 3: message: service id 0, want port 80's, 1000"},
		{"another's service", datagrams, func(e *exchange) { e.seen[2].Record.ServiceID = 2000 },
			"row 3: message: service id 2000, want port 80's, 1000"},
		{"interface", datagrams, func(e *exchange) { e.seen[2].Record.IfIndex = 3 },
			"row 3: message: ifindex 3, want the server's interface, 2"},
		{"ktime before sending", datagrams, func(e *exchange) { e.seen[2].Record.Ktime = 2999 },
			"row 3: message: ktime 2999"},
		{"ktime after receiving", datagrams, func(e *exchange) { e.seen[2].Record.Ktime = 3051 },
			"row 3: message: ktime 3051"},
		{"ktime of one that has none", datagrams, func(e *exchange) { e.untimed = true },
			"row 1: message: ktime 1020, want none"},
		{"ktime after the echo", datagrams, func(e *exchange) { e.sent[2].End = 3019 },
			"row 3: message: ktime 3020, want one from 3000 to 3019"},
		{"no id", datagrams, func(e *exchange) { e.seen[2].Record.PacketID = 0 },
			"row 3: message: packet id 0, want a count"},
		{"id without count", datagrams, func(e *exchange) { e.seen[2].Record.PacketID = id(1, 0) },
			"row 3: message: packet id 281474976710656, want a count"},
		{"repeated id", datagrams, func(e *exchange) { e.seen[3].Record.PacketID = id(0, 1) },
			"row 4: message: packet id 1 is that of row 2's message, too"},
		{"decreasing id", datagrams, func(e *exchange) { e.seen[2].Record.PacketID = id(1, 10) },
			"row 3: message: packet id 281474976710666 comes after 281474976710667 on the same CPU"},

		{"opening error", messages, func(e *exchange) { e.seen[0].Opening.Error = "overrun" },
			"row 1: opening: overrun"},
		{"opening service", messages, func(e *exchange) { e.seen[0].Opening.ServiceID = 2000 },
			"row 1: opening: service id 2000"},
		{"opening before dialing", messages, func(e *exchange) { e.seen[0].Opening.Ktime = 99 },
			"row 1: opening: ktime 99"},
		{"opening after the message", messages, func(e *exchange) { e.seen[0].Opening.Ktime = 1021 },
			"row 1: opening: ktime 1021"},
		{"message with its SYN's id", messages, func(e *exchange) { e.seen[0].Record.PacketID = id(1, 1) },
			"row 1: message: packet id 281474976710657 is that of row 1's opening, too"},
		{"opening id above the message's", messages, func(e *exchange) {
			for i := range 3 {
				e.seen[i].Opening.PacketID = id(1, 12)
			}
			e.seen[3].Record.PacketID = id(1, 14)
		}, "row 1: message: packet id 281474976710667 comes after 281474976710668 on the same CPU"},
		{"another opening", messages, func(e *exchange) { e.seen[1].Opening.PacketID = id(1, 3) },
			"row 2: opening: packet id 281474976710659, and 281474976710657 earlier on the connection"},
		{"two connections with one opening", messages, func(e *exchange) { e.seen[3].Opening.PacketID = id(1, 1) },
			"row 4: opening: packet id 281474976710657 is that of row 1's opening, too"},

		{"nothing from the sender", datagrams, func(e *exchange) { e.seen[1].Sender = Record{Error: "nothing"} },
			"row 2: sender: {PacketID:0 Ktime:0 ServiceID:0 TraceID: Hash:0 IfIndex:0 Error:nothing}, want"},
		{"empty sender", datagrams, func(e *exchange) { e.seen[1].Sender = Record{} },
			"row 2: sender: "},
		{"another message's trace", datagrams, func(e *exchange) { e.seen[1].Sender = e.seen[0].Sender },
			"row 2: sender: "},
		{"swapped traces", messages, func(e *exchange) {
			e.seen[1].Sender, e.seen[2].Sender = e.seen[2].Sender, e.seen[1].Sender
		}, "row 3: sender: "},
		{"more than the sender gave", datagrams, func(e *exchange) { e.seen[1].Sender.ServiceID = 1000 },
			"row 2: sender: "},
		{"no trace", datagrams, func(e *exchange) { e.sent[1].TraceID, e.seen[1].Sender = "", Record{} },
			"row 2: sent without a trace id"},
		{"one trace for two", datagrams, func(e *exchange) {
			e.sent[1].TraceID, e.seen[1].Sender = e.sent[0].TraceID, e.seen[0].Sender
		}, `row 2: trace id "0x00000000000000000000000000000001" is that of message "one", too`},

		{"no reply metadata", datagrams, func(e *exchange) { e.sent[1].Reply = Record{Error: "nothing"} },
			"row 2: reply: the client saw {PacketID:0 Ktime:0 ServiceID:0 TraceID: Hash:0 IfIndex:0 Error:nothing}, want"},
		{"swapped replies", datagrams, func(e *exchange) {
			e.sent[1].Reply, e.sent[2].Reply = e.sent[2].Reply, e.sent[1].Reply
		}, "row 3: reply: the client saw "},
		{"reply with another value", messages, func(e *exchange) { e.sent[1].Reply.Ktime = 1 },
			"row 2: reply: the client saw "},
		{"reply without a value", datagrams, func(e *exchange) { e.sent[1].Reply.Ktime = 0 },
			"row 2: reply: the client saw "},
		{"empty replies", datagrams, func(e *exchange) { e.seen[1].Reply, e.sent[1].Reply = Record{}, Record{} },
			"row 2: reply: {PacketID:0 Ktime:0 ServiceID:0 TraceID: Hash:0 IfIndex:0 Error:}, want ids of the message"},
		{"reply to the message before", datagrams, func(e *exchange) { e.seen[1].Reply, e.sent[1].Reply = e.seen[0].Reply, e.sent[0].Reply },
			"row 2: reply: {PacketID:281474976710667 "},
		{"segment's reply to the message before", messages, func(e *exchange) { e.seen[1].Reply, e.sent[1].Reply = e.seen[0].Reply, e.sent[0].Reply },
			"row 2: reply: {PacketID:0 "},
		{"reply with another message's trace", datagrams, func(e *exchange) {
			e.seen[1].Reply.TraceID, e.sent[1].Reply.TraceID = e.sent[0].TraceID, e.sent[0].TraceID
		}, "row 2: reply: {PacketID:1 "},
		{"reply of another service", messages, func(e *exchange) { e.seen[1].Reply.ServiceID, e.sent[1].Reply.ServiceID = 2000, 2000 },
			"row 2: reply: {PacketID:0 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := tt.from()
			tt.spoil(e)
			err := e.check()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("check() = %v, want %q in it", err, tt.want)
			}
		})
	}
}
