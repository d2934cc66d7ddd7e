// Package postgres keeps what the authorization server and the gate need in
// PostgreSQL 14 and newer: the store (issuer.Store, issuer.KeyStore), the
// session reader of the strict gate (validator.SessionReader), the migrations,
// the upkeep of old rows, and a server of one's own (`postgres embedded`).
//
// pool.go opens the database, call.go runs every step with its deadline, and
// shared_trips.go lets concurrent reads share round trips; rows.go and list_page.go
// are what look-ups and lists have in common. A file then holds the steps about one
// thing: codes.go, refresh.go, sessions.go, users.go. The view of sessions is in
// session_view.go and view_*.go, the upkeep in upkeep*.go, moving all state to
// another database in state*.go, the server of one's own in embedded*.go.
//
// What it refuses to do: wait without a deadline, retry a write that may have
// been executed, hold a session lock, write to a standby, take over a database
// of the replaced system unasked.
package postgres
