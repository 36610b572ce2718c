// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/ethtool.h, which x/sys/unix leaves out.
const (
	ethtoolStrings     = 0x1b
	ethtoolStringCount = 0x37
	ethtoolSetFeatures = 0x3b
	ethtoolFeatures    = 4 // ETH_SS_FEATURES
	ethtoolStringLen   = 32
)

// SetFeature switches a feature of a link on or off, by the name that ethtool -k
// has for it in the kernel. The error is ENOENT where the kernel knows no such one.
func SetFeature(ns *Namespace, link, feature string, on bool) error {
	return wrap("set feature "+feature+" of", link, ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		count := make([]byte, 20)
		binary.NativeEndian.PutUint32(count, ethtoolStringCount)
		binary.NativeEndian.PutUint64(count[8:], 1<<ethtoolFeatures)
		if err := ethtool(fd, link, count); err != nil {
			return err
		}
		n := int(binary.NativeEndian.Uint32(count[16:]))
		names := make([]byte, 12+n*ethtoolStringLen)
		binary.NativeEndian.PutUint32(names, ethtoolStrings)
		binary.NativeEndian.PutUint32(names[4:], ethtoolFeatures)
		binary.NativeEndian.PutUint32(names[8:], uint32(n))
		if err := ethtool(fd, link, names); err != nil {
			return err
		}
		for i := range n {
			name, _, _ := bytes.Cut(names[12+i*ethtoolStringLen:][:ethtoolStringLen], []byte{0})
			if string(name) == feature {
				return setFeature(fd, link, n, i, on)
			}
		}
		return unix.ENOENT
	}))
}

// setFeature sets the feature of that number, of n.
func setFeature(fd int, link string, n, number int, on bool) error {
	// For each 32 features, which of them to set and whether they are on.
	const head, block = 8, 8
	req := make([]byte, head+(n+31)/32*block)
	binary.NativeEndian.PutUint32(req, ethtoolSetFeatures)
	binary.NativeEndian.PutUint32(req[4:], uint32((n+31)/32))
	at := req[head+number/32*block:]
	binary.NativeEndian.PutUint32(at, 1<<(number%32))
	if on {
		binary.NativeEndian.PutUint32(at[4:], 1<<(number%32))
	}
	return ethtool(fd, link, req)
}

func ethtool(fd int, link string, req []byte) error {
	ifr := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&req[0])}
	copy(ifr.name[:], link)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	runtime.KeepAlive(req)
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

// SetMerging gives GRO time to merge what comes to a link: a kernel thread of its
// own receives it, and keeps packets for some milliseconds.
func SetMerging(ns *Namespace, link string) error {
	dir, err := os.MkdirTemp("", "netlab")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	return ns.Do(func() (err error) {
		// It shows the links of the thread that mounts it.
		if err := unix.Mount("sysfs", dir, "sysfs", 0, ""); err != nil {
			return fmt.Errorf("netlab: set merging: %w", os.NewSyscallError("mount", err))
		}
		defer func() { err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)) }()
		for file, value := range map[string]string{"threaded": "1", "gro_flush_timeout": "4000000"} {
			if err := os.WriteFile(filepath.Join(dir, "class/net", link, file), []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})
}
