// Package e2e tries the whole thing from outside: the real caddy binary, a
// real Postgres, the sample APIs, real OAuth clients and a real Chromium. What
// it knows of the gateway is the Caddyfile, HTTP, SQL and what a person sees.
//
// The clients nobody here wrote are pinned in go.mod and in clients/, where each
// has a driver (node_client_test.go). The tutorials of docs/ are followed on a
// machine of their own (reader_machine_test.go, tutorial_test.go).
package e2e
