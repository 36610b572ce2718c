module github.com/sockmeta/sockmeta-go/tests/bench/acceptor

go 1.26.0

require (
	github.com/pires/go-proxyproto v0.15.0
	github.com/sockmeta/sockmeta-go v0.0.0
)

require (
	github.com/cilium/ebpf v0.22.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/sockmeta/sockmeta-go => ../../..
