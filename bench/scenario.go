package main

import (
	"slices"
	"strings"
)

// scenario is one way a request can go through a proxy to the same upstream.
type scenario struct {
	name string
	// what stands in the report.
	description string
	// site is put before reverse_proxy.
	site string
	// option is put into the global option `oauth`; empty: there is none.
	option string
	// defaults: reverse_proxy with Caddy's own transport settings, not with those
	// that Caddyfile.example recommends.
	defaults bool
	// fresh: no token comes twice.
	fresh bool
	// nginx: not Caddy. authRequest: with auth_request to a JWT service.
	nginx, authRequest bool
	// manyOnly: measured with many tokens only.
	manyOnly bool
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

// scenarios; the first is what the others are compared with. All requests carry
// a token, whoever looks at it.
var scenarios = []scenario{
	{
		name:        "plain",
		description: "`reverse_proxy` alone, `keepalive_idle_conns_per_host 1024`",
	},
	{
		name:        "plain-defaults",
		description: "`reverse_proxy` alone, Caddy's default transport",
		defaults:    true,
	},
	{
		name:        "public",
		description: "gate, a public rule: no token is looked at, identity headers are stripped",
		site:        "oauth_server\n\toauth_protect {\n\t\tGET /* public\n\t}",
		option:      "session_check live",
		manyOnly:    true,
	},
	{
		name:        "live",
		description: "gate, `session_check live`: a session is read once, then the view decides",
		site:        rules,
		option:      "session_check live",
	},
	{
		name:        "strict",
		description: "gate, `session_check strict`: the session is read from Postgres for every request",
		site:        rules,
		option:      "session_check strict",
	},
	{
		name:        "first-sight",
		description: "gate, `session_check live`, every token seen for the first time",
		site:        rules,
		option:      "session_check live",
		fresh:       true,
		manyOnly:    true,
	},
	{
		name:        "verify-each",
		description: "a gate without a cache: the signature verified for every request",
		site:        "verify_each",
		manyOnly:    true,
	},
	{
		name:        "verify-read-each",
		description: "a gate without a cache: verified, and the session read, for every request",
		site:        "verify_each read",
		manyOnly:    true,
	},
	{
		name:        "nginx",
		description: "nginx `proxy_pass` alone",
		nginx:       true,
		manyOnly:    true,
	},
	{
		name:        "nginx-auth-request",
		description: "nginx with `auth_request` to a service that verifies the signature, both counted",
		nginx:       true,
		authRequest: true,
		manyOnly:    true,
	},
}

// scenarioOf returns the scenario of that name.
func scenarioOf(name string) scenario {
	return scenarios[slices.IndexFunc(scenarios, func(sc scenario) bool { return sc.name == name })]
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
