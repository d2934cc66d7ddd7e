// Package caddyscope links the caddymodule package, so that
// `xcaddy build --with github.com/caddy-scope/caddy-scope` builds a Caddy that
// is an OAuth 2.1 authorization server and the gate in front of HTTP APIs.
package caddyscope

import _ "github.com/caddy-scope/caddy-scope/caddymodule"
