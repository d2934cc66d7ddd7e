package main

import (
	"slices"
	"strings"
)

// scenario is one way a request can go through Caddy. All of them end in the
// same reverse_proxy to the same upstream.
type scenario struct {
	name string
	// what stands in the report.
	description string
	// site is put before reverse_proxy.
	site string
	// option is put into the global option `oauth`; without site there is none.
	option string
	// credentials: requests carry the access tokens.
	credentials bool
}

const rules = `oauth_server
	oauth_protect {
		GET  /jobs           jobs:read
		GET  /jobs/*         jobs:read
		GET  /applications   applications:read
		GET  /applications/* applications:read
		POST /applications   applications:write
		GET  /resume         resume:read
		POST /resume/analyze resume:read
		GET  /health         public
	}`

// scenarios; the first is what the others are compared with.
var scenarios = []scenario{
	{
		name:        "plain",
		description: "reverse_proxy alone; the token is sent along and nobody looks at it",
		credentials: true,
	},
	{
		name:        "public",
		description: "the gate, a public rule: no token is looked at, identity headers are stripped",
		site:        "oauth_server\n\toauth_protect {\n\t\tGET /* public\n\t}",
		credentials: true,
	},
	{
		name:        "live",
		description: "the gate, session_check live: a session is read once, then the view decides",
		site:        rules,
		option:      "session_check live",
		credentials: true,
	},
	{
		name:        "strict",
		description: "the gate, session_check strict: the session is read from Postgres for every request",
		site:        rules,
		option:      "session_check strict",
		credentials: true,
	},
}

// selected returns the first scenario and those named, or all.
func selected(names string) []scenario {
	if names == "" {
		return scenarios
	}
	wanted := strings.Split(names, ",")
	chosen := scenarios[:1:1]
	for _, s := range scenarios[1:] {
		if slices.Contains(wanted, s.name) {
			chosen = append(chosen, s)
		}
	}
	return chosen
}
