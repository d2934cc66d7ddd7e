// Command caddy is the Caddy that the benchmarks measure: caddy-scope, and
// verify_each, a gate as one would write it first.
package main

import (
	_ "time/tzdata"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-scope/caddy-scope"
)

func main() {
	caddycmd.Main()
}
