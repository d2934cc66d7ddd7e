//go:build !linux

package postgres

import "syscall"

// limitUnacked does nothing where TCP_USER_TIMEOUT does not exist; keepalive
// ends what is idle.
func limitUnacked(string, string, syscall.RawConn) error { return nil }
