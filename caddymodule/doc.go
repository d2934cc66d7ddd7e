// Package caddymodule is the Caddy side of caddy-scope: the app `oauth`, the
// handlers `oauth_server` and `oauth_protect`, their Caddyfile, the admin API
// and the `caddy oauth` commands. It decides nothing about tokens or scopes
// itself: packages issuer and validator do.
package caddymodule
