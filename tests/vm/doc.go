// SPDX-License-Identifier: Apache-2.0

// Command vm runs the project's tests on other kernels than the host's: it
// boots kernels of Debian in QEMU, without any hardware support, with the test
// binaries of all packages in an initramfs, runs the same binaries on the host, too,
// and prints how every test went on every kernel.
//
//	go run ./tests/vm
//	go run ./tests/vm -kernels 6.12,host -packages ./tests -run TestUDP -v
//	go run ./tests/vm -kernels 6.12+lockdown,6.12+cgroup1,7.3+native
//	go run ./tests/vm -kernels 7.3 -append nokaslr -run TestSend
//	go run ./tests/vm -readme README.md [-write]
//
// By default these are all tests on all kernels, and some on machines of their own:
// +lockdown is a kernel with lockdown=confidentiality, which runs TestLockdown...,
// +cgroup1 one without cgroup v2, for TestCgroup1.... +native has the module of bpf/kmod
// and runs all tests that receive datagrams; what is about TCP, transmitting, and attaching
// is the same without. +kmod runs TestNative... with a kernel that checks its memory, too.
// DKMS builds the module for that kernel, as on a user's host, in a chroot in the cache;
// neither the compiler nor sparse may have anything to say of it.
// The virtual machines have numbers of CPUs that leave gaps. As they are slow, tests are
// run with -short, by which testutil.Scale has them do less; they are not skipped. With
// -short=false they do everything.
//
// A test that fails on any kernel, or that is skipped on one without being
// listed as impossible there, makes the command fail, and so do complaints of
// the booted kernels themselves. Where all was run, so do tests that every kernel
// skipped and reasons to skip that no test needs, and with -readme a support table
// that is not what the tests have shown. It needs a Debian host; QEMU is installed
// where that's missing and the process may, kernels are downloaded once.
package main
