// SPDX-License-Identifier: Apache-2.0

package main

import "regexp"

// A benchCase measures some rows of the table.
type benchCase struct {
	name string
	run  func(m *meter) ([]Row, error)
}

// cases are in the table's order.
var cases = []benchCase{
	{"udp-read", udpRead},
	{"udp-batch", udpBatch},
	{"udp-gro", udpGRO},
	{"record", record},
	{"udp-send", udpSend},
	{"bpf", bpfTime},
	{"tcp-metadata", tcpMetadata},
	{"tcp-accept", tcpAccept},
	{"tcp-stream", tcpStream},
	{"sockopt", otherSockopt},
	{"growth-sockets", growthSockets},
	{"growth-goroutines", growthGoroutines},
	{"growth-ring", growthRing},
	{"memory", memory},
}

func casesMatching(re *regexp.Regexp) (found []benchCase) {
	for _, c := range cases {
		if re.MatchString(c.name) {
			found = append(found, c)
		}
	}
	return found
}
