package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpuTimes are what the parties have used so far.
type cpuTimes struct{ gateway, postgres, client time.Duration }

func (t *tokenEndpoint) cpuTimes() (c cpuTimes, err error) {
	if c.gateway, err = t.proxy.cpuTime(); err != nil {
		return c, err
	}
	if c.postgres, err = postgresCPU(t.postmaster); err != nil {
		return c, err
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return c, fmt.Errorf("read own cpu time: %w", err)
	}
	c.client = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	return c, nil
}

// postgresCPU is the time of the server and of all its backends, also of those
// that have ended.
func postgresCPU(postmaster int) (total time.Duration, err error) {
	pids, err := withChildren(postmaster)
	if err != nil {
		return 0, err
	}
	for i, pid := range pids {
		fields, err := statFields(pid)
		if err != nil {
			if i > 0 { // a backend that has just ended is among the reaped
				continue
			}
			return 0, err
		}
		last := 13 // utime, stime
		if i == 0 {
			last = 15 // cutime, cstime
		}
		for _, field := range fields[11:last] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read cpu time: %w", err)
			}
			total += time.Duration(ticks) * clockTick
		}
	}
	return total, nil
}

func parentOf(pid int) (int, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(fields[1])
}

// statFields are the fields of /proc/PID/stat from the third on: the second,
// the command's name, may hold spaces.
func statFields(pid int) ([]string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, fmt.Errorf("read process: %w", err)
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		return nil, fmt.Errorf("read process: unexpected stat line of %d", pid)
	}
	return fields, nil
}
