// Package postgres keeps what the authorization server and the gate need in
// PostgreSQL 14 and newer: the store (issuer.Store, issuer.KeyStore), the
// session reader of the strict gate (validator.SessionReader), the migrations,
// the upkeep of old rows, and a server of one's own (`postgres embedded`).
//
// What it refuses to do: wait without a deadline, retry a write that may have
// been executed, hold a session lock, write to a standby, take over a database
// of the replaced system unasked.
package postgres
