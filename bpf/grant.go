// SPDX-License-Identifier: Apache-2.0

package bpf

// A Grant lets others than the process that attached map the receive map, so that
// a record takes them a few nanoseconds instead of a system call.
//
// They see all of it: the metadata of every socket that opted in to the
// attachment, whoever's it is. Those who are granted it have to trust each other,
// and the others have to trust them. None of them can write it, and the library
// gives an application the records of its own sockets only. Applications that
// have no business with each other get an attachment each, to their own cgroups.
type Grant struct {
	// Path is where the map is pinned, on a bpffs. Applications name it
	// (sockmeta.ListenConfig.ReceiveMap, sockmeta.Dialer.ReceiveMap) and have to
	// be able to get there: /sys/fs/bpf is root's alone on most hosts (mode
	// 0700), so that another bpffs has to be mounted for it:
	//
	//	mount -t bpf -o mode=0755 bpf /run/sockmeta
	Path string

	// UID and GID are the user and the group that may map it, besides root: the
	// pin is theirs and has mode 0660. 0: root alone. The user, who owns the pin, can
	// let others open it (chmod); all holders of the map can hand it on.
	UID, GID int
}
