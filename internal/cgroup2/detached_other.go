// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package cgroup2

func detachedMount() (MountPoint, error) { return MountPoint{}, ErrNoCgroup2 }
