module github.com/sockmeta/sockmeta-go/cmd

go 1.26.0

// "go install" allows no replace. So this names the version of the library that is released
// together with this module: the tags v0.1.0 and cmd/v0.1.0 are of one commit. In the tree
// go.work has the library.
require github.com/sockmeta/sockmeta-go v0.1.0

require (
	github.com/cilium/ebpf v0.22.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
