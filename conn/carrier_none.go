// SPDX-License-Identifier: Apache-2.0

package conn

import "github.com/sockmeta/sockmeta-go/cmsg"

// none is the carrier of a plain socket: it says why there are no records.
type none struct{ err error }

func (none) room() int                                         { return 0 }
func (none) kind(cmsg.Message) kind                            { return kindOther }
func (none) locate([]byte, int) arrival                        { return arrival{} }
func (none) prefetch([]arrival)                                {}
func (c none) fetch(*arrival, *cmsg.Metadata) (tsFlags, error) { return tsFlags{}, c.err }
func (none) timestamping(uint64) tsFlags                       { return tsFlags{} }
func (none) remember(*arrival)                                 {}
func (c none) recall(*cmsg.Metadata) error                     { return c.err }
