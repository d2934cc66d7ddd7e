//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// ownGroup keeps the terminal's Ctrl-C from the process: we stop it in order.
// If we are killed it is told to end, where the system can do that.
func ownGroup(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(c.SysProcAttr)
}

// lockData keeps a second try-out off the same data. The lock is the kernel's
// and goes with the process, however that ends.
func lockData(name string) (func(), error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(name)
		_ = file.Close()
		return nil, fmt.Errorf("%s is in use: the try-out runs here already (process %s). Stop that one with Ctrl-C first", dataDir, strings.TrimSpace(string(holder)))
	}
	_ = file.Truncate(0)
	_, _ = fmt.Fprintln(file, os.Getpid())
	return func() { _ = file.Close() }, nil
}
