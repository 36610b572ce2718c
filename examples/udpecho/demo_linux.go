// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"github.com/sockmeta/sockmeta-go/internal/demo"
)

func runDemo(ctx context.Context) error {
	return demo.Run(ctx, os.Stdout, func(ctx context.Context, lab *demo.Lab) error {
		err := lab.Serve(func(addr string) (func() error, error) {
			c, err := listen(addr)
			if err != nil {
				return nil, err
			}
			port := demo.Addr(c.LocalAddr()).Port()
			return func() error {
				return serve(ctx, c, func(d datagram) {
					lab.Saw(demo.Seen{
						Message: string(d.payload),
						From:    demo.Unmap(d.from),
						Port:    port,
						Bytes:   len(d.payload),
						Record:  demo.NewRecord(*d.metadata, d.err),
						Sender:  demo.NewSender(*d.metadata, d.err),
						Reply:   demo.NewRecord(*d.reply, nil),
					})
				})
			}, c.Support().Err()
		})
		if err != nil {
			return err
		}
		return lab.Echo(ctx, "udp", 4)
	})
}
