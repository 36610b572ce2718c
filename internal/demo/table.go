// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// A line is a message and its reply.
type line struct {
	Seen
	// reply is what the client saw of the reply, nil where it cannot see it.
	reply *Record
}

// A column has text for each line. It is left out where it has none at all.
type column struct {
	head string
	text func(line) string
}

var columns = []column{
	{"from", func(l line) string { return l.From.String() }},
	{"port", func(l line) string { return fmt.Sprint(l.Port) }},
	{"bytes", func(l line) string { return fmt.Sprint(l.Bytes) }},
	{"opened by", func(l line) string {
		if l.Opening == nil {
			return ""
		}
		return packet(*l.Opening)
	}},
	{"packet", func(l line) string { return packet(l.Record) }},
	{"service", func(l line) string { return service(l.Record) }},
	{"age µs", age},
	{"hash", func(l line) string { return fmt.Sprintf("%08x", l.Record.Hash) }},
	{"if", func(l line) string { return fmt.Sprint(l.Record.IfIndex) }},
	{"trace", func(l line) string {
		if l.reply == nil {
			return ""
		}
		return trace(l.Sender)
	}},
	{"← packet", ofReply(packet)},
	{"← service", ofReply(service)},
	{"← trace", ofReply(trace)},
}

func ofReply(text func(Record) string) func(line) string {
	return func(l line) string {
		if l.reply == nil {
			return ""
		}
		return text(*l.reply)
	}
}

// writeTable prints a line for each message. Packet ids are printed as the
// receiving CPU and the count of its packets.
func writeTable(w io.Writer, lines []line) error {
	legend := "Messages as the server saw them:"
	if slices.ContainsFunc(lines, func(l line) bool { return l.reply != nil }) {
		legend = "Messages as the server saw them, the trace being the client's; ← what the server gave the reply, as the client saw it:"
	}
	if _, err := fmt.Fprintln(w, legend); err != nil {
		return err
	}
	shown := slices.DeleteFunc(slices.Clone(columns), func(c column) bool {
		return !slices.ContainsFunc(lines, func(l line) bool { return c.text(l) != "" })
	})
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	cells := []string{"#"}
	for _, c := range shown {
		cells = append(cells, c.head)
	}
	fmt.Fprintln(tw, strings.Join(cells, "\t")+"\t")
	for i, l := range lines {
		cells = append(cells[:0], fmt.Sprint(i+1))
		for _, c := range shown {
			cells = append(cells, cmp.Or(c.text(l), "-"))
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t")+"\t")
	}
	return tw.Flush()
}

func packet(r Record) string {
	switch {
	case r.Error != "":
		return "error"
	case r.PacketID == 0:
		return ""
	}
	return fmt.Sprintf("cpu%d:%d", r.cpu(), r.count())
}

func service(r Record) string {
	if r.ServiceID == 0 {
		return ""
	}
	return fmt.Sprint(r.ServiceID)
}

// trace returns the first digits, which are enough to tell a few from each other.
func trace(r Record) string {
	digits := strings.TrimPrefix(r.TraceID, "0x")
	return digits[:min(len(digits), 8)]
}

func age(l line) string {
	if l.Record.Ktime == 0 || l.Record.Ktime > l.At {
		return ""
	}
	return fmt.Sprint((l.At - l.Record.Ktime) / 1000)
}
