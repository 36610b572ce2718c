// SPDX-License-Identifier: Apache-2.0

package main

// How many rounds it takes until what a round does as a rule must have come up,
// and until everything must have.
const (
	roundsForUsual = 25
	roundsForAll   = 200
)

// What there has to be of, or the checks had nothing to check.
var (
	usual = []string{
		"attachments", "attaching processes killed", "producer attached", "producer detached",
		"udp matched", "udp received in flows without drops", "udp dropped by sockets", "udp sent with metadata",
		"wire: udp matched",
	}
	unusual = []string{
		"application: ended", "application: killed", "application: udp matched", "application: udp sender's matched",
		"attachments given up", "attachments of the soak's own process", "attachments shared",
		"producer replaced",
		"receivers, connected", "receivers, GRO", "receivers, SO_REUSEPORT groups", "receivers, two processes",
		"receivers, udp", "receivers, udp4", "receivers, udp6",
		"senders, connected", "senders, not connected", "senders, two processes",
		"tcp aborted", "tcp accepted", "tcp matched", "tcp opening", "tcp passed on", "tcp peeked", "tcp set metadata",
		"udp again matched", "udp lost: overrun", "udp peeked matched", "udp received in aggregates",
		"udp sent in trains", "udp sockets wrapped anew",
		"wire: tcp matched",
	}
)

func (l *Ledger) judgeCoverage() {
	var wanted []string
	if l.Counts["rounds"] >= roundsForUsual {
		wanted = usual
	}
	if l.Counts["rounds"] >= roundsForAll {
		wanted = append(wanted[:len(wanted):len(wanted)], unusual...)
	}
	for _, name := range wanted {
		if l.Counts[name] == 0 {
			l.violate("nothing in all rounds: %s", name)
		}
	}
}

// countTasks says what the tasks of a round are.
func (pl *plan) countTasks(l *Ledger) {
	for _, tasks := range pl.tasks {
		for i := range tasks {
			t := &tasks[i]
			// One of two that use a socket.
			if t.Handover == take {
				continue
			}
			switch t.Kind {
			case "receive":
				l.add("receivers, "+t.Network, 1)
				l.addIf(t.Connected, "receivers, connected")
				l.addIf(t.GRO, "receivers, GRO")
				l.addIf(t.Sockets > 1, "receivers, SO_REUSEPORT groups")
				l.addIf(t.Handover == give, "receivers, two processes")
			case "send":
				l.addIf(t.Connected, "senders, connected")
				l.addIf(!t.Connected, "senders, not connected")
				l.addIf(t.Handover == give, "senders, two processes")
			}
		}
	}
	l.add("rounds, attachment "+pl.attachments.String(), 1)
	l.add("rounds, producer "+pl.producer.String(), 1)
}

func (p presence) String() string {
	return [...]string{"always there", "never there", "changing"}[p]
}

func (l *Ledger) addIf(is bool, name string) {
	if is {
		l.add(name, 1)
	}
}
