// SPDX-License-Identifier: Apache-2.0

// Package netlab builds the throw-away networks and cgroups that the examples
// and tests of this module run in.
//
// A [Namespace] is an anonymous network namespace: nothing but file descriptors
// refers to it, so it and the links in it go away with the process, however
// that ends. A [Pair] is two such namespaces joined by a veth link. A [Cgroup]
// is a directory and outlives a killed process; the next NewCgroup removes what
// such a process left behind.
//
// Everything here needs Linux, and root or the equivalent capabilities. Links
// of a kind the kernel was built without are reported by errors that match
// [errors.ErrUnsupported].
package netlab
