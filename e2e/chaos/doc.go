// Package chaos breaks a running deployment and holds it to its promises: the
// rows of docs/reliability.md, one test each. The cluster is real (e2e/cluster),
// and what clients saw is kept and checked by the ledger (e2e/ledger).
//
// Each test has a short form, which runs with all tests, and a long one, for
// which `make chaos` sets -long: longer faults, more of them, more load, and the
// faults that need root. Every figure is printed beside its limit; with
// -results FILE also written there.
package chaos
