// Package admin is what operators do with clients, sessions, signing keys,
// registrations and the audit trail. It stands behind two doors, the commands
// `caddy oauth …` and Caddy's admin API, which so cannot disagree.
//
// It decides nothing about tokens. What it changes is rows, which every node
// follows; a client of the configuration is changed there. A secret is in the
// answer that made it and nowhere else.
//
// Lists are pages: items and the cursor at which the next page goes on. They go
// by an index, and a page looks at a bounded number of rows, however many there
// are and whether or not they match. So a page may hold fewer items than were
// asked for, and still have a next one.
package admin
