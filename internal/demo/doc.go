// SPDX-License-Identifier: Apache-2.0

// Package demo is what the examples' -demo modes have in common: two hosts, one
// of which gives the packets that it receives metadata, a client on the other,
// and a check of what the application saw against what the client sent, and of
// what the client saw of the replies against what the application sent.
package demo
