// Command caddy is Caddy with caddy-scope linked in: what
// `xcaddy build --with github.com/caddy-scope/caddy-scope` builds, without xcaddy.
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
