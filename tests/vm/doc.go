// SPDX-License-Identifier: Apache-2.0

// Command vm runs the project's tests on other kernels than the host's: it
// boots kernels of Debian in QEMU, without any hardware support, with the test
// binaries of all packages in an initramfs, and prints how every test went on
// every kernel.
//
//	go run ./tests/vm -kernels 6.12,7.3 -run TestUDP -v
//
// A test that fails on any kernel, or that is skipped on one without being
// listed as impossible there, makes the command fail, and so do complaints of
// the kernel itself. It needs a Debian host; QEMU is installed where that's
// missing and the process may, kernels are downloaded once.
package main
