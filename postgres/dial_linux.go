package postgres

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unackedLimit is how long sent bytes may go unacknowledged. A partition that
// drops packets says nothing: without this the system sends again for a
// quarter of an hour, and the connection keeps its place in the pool.
const unackedLimit = 4 * time.Second

// limitUnacked is a net.Dialer.Control.
func limitUnacked(network, _ string, conn syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	var err error
	if controlErr := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedLimit.Milliseconds()))
	}); controlErr != nil {
		return controlErr
	}
	return err
}
