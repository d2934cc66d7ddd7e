// Package caddymodule is the Caddy side of caddy-scope: the app `oauth`, the
// handlers `oauth_server` and `oauth_protect`, their Caddyfile, the admin API
// and the `caddy oauth` commands. It decides nothing about tokens or scopes
// itself: packages issuer and validator do.
//
// A configuration walks through the files in this order: caddyfile_oauth.go and
// caddyfile_protect.go fill the settings (config.go, protect.go), provision.go and
// provision_client.go check and resolve them, survey.go looks at the gates of all
// routes together, runtime.go starts what app.go put together, and database.go
// hands it over from one configuration to the next.
//
// A request walks through server.go to the endpoints of issuer, or through
// protect.go to validator and then to the upstream, whose answer comes back
// through response.go and streams.go.
//
// A command is in command_*.go. What it does is done by the package of its
// subject: admin (clients, sessions, keys), doctor, explain, rules, ruletest,
// observe. Where it needs to know what a configuration would answer, it asks a
// rehearsal (rehearsal.go): the configuration as Caddy provisions it, never started.
//
// What it refuses to do: open a connection, make a key or start a server before
// Start, so that `caddy validate` needs no database; put a secret into the adapted
// JSON or the log; take a configuration in which a gate could be passed by or two
// rules leave open which decides.
package caddymodule
