package ratelimit

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of a limit.
const (
	MaxQuota  = 1_000_000
	MaxWindow = 24 * time.Hour
)

// Rate is how often something may be done.
type Rate struct {
	Quota  int           // at once, and again in each window; 1 to MaxQuota
	Window time.Duration // whole seconds, at most MaxWindow
}

// ParseRate reads 30/m, 10/s, 500/h, 1000/d or, for another window, 5/10s. The
// error says what is expected.
func ParseRate(s string) (Rate, error) {
	quota, window, ok := strings.Cut(s, "/")
	n, err := strconv.Atoi(quota)
	if !ok || err != nil || quota != strconv.Itoa(n) {
		return Rate{}, fmt.Errorf("%q is not a rate such as 30/m, 10/s, 500/h or 5/10s", s)
	}
	r := Rate{Quota: n}
	switch window {
	case "d", "1d":
		r.Window = 24 * time.Hour
	case "s", "m", "h":
		r.Window, _ = time.ParseDuration("1" + window)
	default:
		if r.Window, err = time.ParseDuration(window); err != nil {
			return Rate{}, fmt.Errorf("%q is not a rate such as 30/m, 10/s, 500/h or 5/10s", s)
		}
	}
	return r, r.Check()
}

// Check reports what is wrong with the rate.
func (r Rate) Check() error {
	switch {
	case r.Quota < 1 || r.Quota > MaxQuota:
		return fmt.Errorf("%s: a number from 1 to %d is expected before the slash", r, MaxQuota)
	case r.Window < time.Second || r.Window > MaxWindow || r.Window%time.Second != 0:
		return fmt.Errorf("%s: the window is whole seconds, from 1s to 24h", r)
	}
	return nil
}

// String returns the rate as ParseRate reads it.
func (r Rate) String() string {
	switch r.Window {
	case time.Second:
		return fmt.Sprintf("%d/s", r.Quota)
	case time.Minute:
		return fmt.Sprintf("%d/m", r.Quota)
	case time.Hour:
		return fmt.Sprintf("%d/h", r.Quota)
	case MaxWindow:
		return fmt.Sprintf("%d/d", r.Quota)
	}
	return fmt.Sprintf("%d/%ds", r.Quota, r.Window/time.Second)
}

// Limit is a rate for the callers of one thing. Made by NewLimit.
type Limit struct {
	Rate
	// Name of the policy, as clients are told it.
	Name string

	id       [16]byte
	interval int64  // of two units at the rate, in ns
	capacity int64  // of the whole quota, in ns
	policy   string // an item of RateLimit-Policy
}

// NewLimit returns a limit. What is counted under one limit and one key is the
// same wherever thing, rate and name are; nodes and configurations share it by
// that. name is printable ASCII without quotes and backslashes.
func NewLimit(thing, name string, rate Rate) (*Limit, error) {
	if err := rate.Check(); err != nil {
		return nil, err
	}
	if strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		return nil, fmt.Errorf("%q cannot be the name of a limit", name)
	}
	l := &Limit{Rate: rate, Name: name}
	digest := sha256.Sum256([]byte(thing + "\x00" + name + "\x00" + rate.String()))
	l.id = [16]byte(digest[:])
	// Rounded up, so that it is never more than the quota.
	l.interval = (int64(rate.Window) + int64(rate.Quota) - 1) / int64(rate.Quota)
	l.capacity = l.interval * int64(rate.Quota)
	l.policy = fmt.Sprintf(`"%s";q=%d;w=%d`, name, rate.Quota, rate.Window/time.Second)
	return l, nil
}
