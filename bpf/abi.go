// SPDX-License-Identifier: Apache-2.0

package bpf

import "github.com/sockmeta/sockmeta-go/internal/abi"

// Info is what an attachment says of itself.
type Info = abi.Info

// Counts say what became of the records that were sent, in packets unless
// they say otherwise, since the programs were attached. Full and UserFull say
// how often a socket was to go without metadata because of Options.MaxSockets and
// MaxSocketsPerUser.
type Counts = abi.Counts
