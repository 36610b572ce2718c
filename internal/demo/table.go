// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// writeTable prints a row for each message. Packet ids are printed as the
// receiving CPU and the count of its packets.
func writeTable(w io.Writer, seen []Seen) error {
	connections := slices.ContainsFunc(seen, func(s Seen) bool { return s.Opening != nil })
	opener := func(text string) string {
		if !connections {
			return ""
		}
		return text + "\t"
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "#\tfamily\tfrom\tport\tbytes\t%spacket\tservice\tage µs\thash\tifindex\t\n", opener("opened by"))
	for i, s := range seen {
		family := "IPv6"
		if s.From.Addr().Is4() {
			family = "IPv4"
		}
		opening := ""
		if s.Opening != nil {
			opening = packet(*s.Opening)
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%d\t%d\t%s%s\t%d\t%s\t%#x\t%d\t\n", i+1, family, s.From, s.Port, s.Bytes,
			opener(opening), packet(s.Record), s.Record.ServiceID, age(s), s.Record.Hash, s.Record.IfIndex)
	}
	return tw.Flush()
}

func packet(r Record) string {
	if r.Error != "" {
		return "error"
	}
	return fmt.Sprintf("cpu%d:%d", r.cpu(), r.count())
}

func age(s Seen) string {
	if s.Record.Ktime == 0 || s.Record.Ktime > s.At {
		return "-"
	}
	return fmt.Sprint((s.At - s.Record.Ktime) / 1000)
}
