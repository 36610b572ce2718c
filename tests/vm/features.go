// SPDX-License-Identifier: Apache-2.0

package main

// features are the rows of README's table, each with the tests that show it, by
// package and test. A test with parts stands for all of them. Those of a variant are
// shown by the kernel's run in that machine.
var features = []struct {
	name    string
	tests   []string
	variant string
}{
	{"UDP: receive metadata", []string{"tests TestUDPMetadata", "tests TestIntegrity", "tests TestUDPOverrun"}, ""},
	{"UDP: without any privilege", []string{"tests TestUDPUnprivileged", "tests TestIntegrityUnprivileged"}, ""},
	{"UDP: `WriteMetadata`", []string{"tests TestSend", "tests TestSendApplies", "tests TestIntegritySend"}, ""},
	{"UDP: launch times, `fq`", []string{"tests TestSendLaunchTime", "tests TestLaunchTimeFQ"}, ""},
	{"TCP: `Metadata`", []string{"tests TestTCPAccepted", "tests TestTCPDialed", "tests TestIntegrityTCP"}, ""},
	{"TCP: `SetMetadata`", []string{"tests TestTCPSend", "tests TestTCPSendApplies", "tests TestTCPSendRetransmission"}, ""},
	{"areas of producers, up to 32 bytes", []string{"tests TestAreas", "tests TestAreaSizes", "examples/udpecho TestDemo"}, ""},
	{"areas of producers, up to 252 bytes", []string{"tests TestLargeAreas"}, ""},
	{"metadata between local sockets", []string{"tests TestLocalUDP", "tests TestLocalTCP"}, ""},
	{"`tracing`: raw control messages", []string{"tests TestTracingMessages", "tests TestTracingRawsend", "tests TestTracingIOUring"}, ""},
	{"`native`, with the module: UDP, without overruns", []string{"tests TestUDPMetadata", "tests TestUDPUnprivileged", "tests TestUDPOverrun", "tests TestSend", "tests TestIntegrity", "tests TestIntegrityUnprivileged"}, "native"},
	{"`native`, with the module: control messages for any program", []string{"tests TestNativeReceive", "tests TestNativeMmsg", "tests TestNativeIOUring", "tests TestNativeModule"}, "kmod"},
}
