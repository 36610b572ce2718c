// SPDX-License-Identifier: Apache-2.0

package conn

import "github.com/sockmeta/sockmeta-go/cmsg"

// A carrier brings records from the kernel to a socket that receives datagrams. optIn
// chooses one of mapped, asked, native and none, and it stays.
type carrier interface {
	// room returns how many bytes a buffer for control messages has to have besides the
	// caller's. 0 means that all control messages are the caller's.
	room() int
	// kind says what to do with a control message.
	kind(m cmsg.Message) kind
	// locate finds the record's place in a datagram's control messages, and in the
	// flags that recvmsg returned.
	locate(got []byte, flags int) arrival
	// prefetch makes the next fetches of the records faster.
	prefetch(as []arrival)
	// fetch reads the record into md. It returns what the application asked of
	// SO_TIMESTAMPING if the carrier knows. After an error md is undefined.
	fetch(a *arrival, md *cmsg.Metadata) (tsFlags, error)
	// timestamping returns the same without the record. handle is 0 if there is none.
	timestamping(handle uint64) tsFlags
	// remember keeps the last datagram's arrival.
	remember(a *arrival)
	// recall is fetch for what was remembered.
	recall(md *cmsg.Metadata) error
}
