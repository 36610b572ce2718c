// SPDX-License-Identifier: Apache-2.0

// Package clients runs libraries that people use on sockmeta's sockets, unchanged,
// and looks whether their users find the metadata of their own packets. What to write
// for each is in docs/clients.md.
package clients
