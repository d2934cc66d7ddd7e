// Command bench measures what the gate costs, side by side in one run.
//
// It starts a Postgres of its own, an upstream that is not the bottleneck, and
// one proxy for each scenario, all on loopback. Scenarios take turns
// (A B C A B C ...), so that a drift of the machine's speed hits all of them
// alike, and each is compared with the first one round by round. The figure
// that counts is CPU per request of the proxy's processes, read from /proc: it
// is steadier than throughput on a shared machine.
//
//	main.go            flags, order
//	scenario.go        what is compared
//	scene.go           Postgres, sessions, tokens, upstream
//	proxy.go           a proxy under test; caddy_proxy.go, nginx_proxy.go
//	jwt_service.go     who answers nginx's auth_request
//	gate.go            the gate: closed loop and open loop
//	token_endpoint.go  the token endpoint beside pgbench; pgbench.go, endpoint_cpu.go
//	scale.go           how cost grows with the tables; scale_fill.go, scale_works.go, scale_cost.go
//	load.go            the load generator
//	process.go         CPU time and memory of a process, from /proc
//	statistics.go      medians and their bounds
//	results.go         the results file
//	report.go, plot.go the tables and plots, drawn from the results files; scale_report.go, scale_example.go
//	caddy/             the Caddy that is measured: ours, and a gate without a cache
//
// It runs on Linux, with Debian's nginx and PostgreSQL's pgbench installed.
package main
