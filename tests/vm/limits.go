// SPDX-License-Identifier: Apache-2.0

package main

// Limits of a host that others with the same kernel may not have.
const (
	noTrampolines = "host without trampolines"
	noFQ          = "host without fq"
	noVLAN        = "host without VLANs"
	noTunnels     = "host without Geneve and other tunnels"
	noDummy       = "host without dummy interfaces"
)
