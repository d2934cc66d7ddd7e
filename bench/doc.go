// Command bench measures what the gate costs, side by side in one run.
//
// It starts a Postgres of its own, an upstream that is not the bottleneck, and
// one Caddy process for each scenario, all on loopback. Scenarios take turns
// (A B C A B C ...), so that a drift of the machine's speed hits all of them
// alike, and each is compared with the first one round by round. The figure
// that counts is CPU per request of the proxy process, read from /proc: it is
// steadier than throughput on a shared machine.
//
//	main.go      flags, rounds, order
//	scenario.go  what is compared
//	scene.go     Postgres, sessions, tokens, upstream
//	gateway.go   one Caddy process
//	load.go      the load generator: closed loop over kept connections
//	process.go   CPU time and memory of a process, from /proc
//	report.go    medians, ratios, tables, the results file
//
// It runs on Linux.
package main
