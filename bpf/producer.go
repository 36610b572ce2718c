// SPDX-License-Identifier: Apache-2.0

package bpf

// ProducerOptions say what AttachProducer's program writes. The zero value
// works.
type ProducerOptions struct {
	// Services are the service ids (cmsg.KeyServiceID) by the packet's
	// destination port, UDP or TCP. Packets to other ports get no service id.
	Services map[uint16]uint32

	// Generic keeps to generic XDP, which works on every interface, even
	// where the driver has XDP of its own.
	Generic bool
}
