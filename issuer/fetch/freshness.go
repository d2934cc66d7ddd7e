package fetch

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// freshness is how long an answer may be kept: zero for not at all, below zero
// where nothing is said. RFC 9111 sections 4.2.1 and 5.2.2.
func freshness(h http.Header, now time.Time) time.Duration {
	lifetime, said := time.Duration(0), false
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err != nil {
				return 0 // what cannot be read is stale
			}
			lifetime, said = time.Duration(seconds)*time.Second, true
		}
	}
	if !said && h.Get("Expires") != "" {
		expires, err := http.ParseTime(h.Get("Expires"))
		if err != nil {
			return 0
		}
		lifetime, said = expires.Sub(now), true
	}
	if !said {
		return -1
	}
	if age, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil {
		lifetime -= time.Duration(age) * time.Second
	}
	return max(lifetime, 0)
}
