// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
)

// kernelFields are what /proc/meminfo says of memory that maps, programs and
// sockets are made of.
var kernelFields = []string{"SUnreclaim:", "Percpu:", "VmallocUsed:"}

// kernelMemory is the whole machine's, which others use, too: it is told and not
// judged. What of it the soak's objects have is free once they are gone, which is
// judged in each round (ids, judgeSockets).
func kernelMemory() (string, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		for _, name := range kernelFields {
			if len(f) > 1 && f[0] == name {
				fmt.Fprintf(&out, " %s %s kB", f[0], f[1])
			}
		}
	}
	return out.String(), nil
}
