// Package e2e tries the whole thing from outside: the real caddy binary, a
// real Postgres, the sample APIs, real OAuth clients and a real Chromium. What
// it knows of the gateway is the Caddyfile, HTTP, SQL and what a person sees.
package e2e
