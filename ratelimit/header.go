package ratelimit

import (
	"net/http"
	"strconv"
	"time"
)

// SetHeader tells the client how it stands: RateLimit, RateLimit-Policy and, when a
// state is a refusal, Retry-After. draft-ietf-httpapi-ratelimit-headers-10, RFC 9110
// section 10.2.3.
func SetHeader(header http.Header, states []State) {
	var limits, policies []byte
	for i, state := range states {
		if i > 0 {
			limits, policies = append(limits, ", "...), append(policies, ", "...)
		}
		policies = append(policies, state.Limit.policy...)
		limits = append(append(append(limits, '"'), state.Limit.Name...), `";r=`...)
		limits = strconv.AppendInt(limits, int64(state.Remaining), 10)
		limits = strconv.AppendInt(append(limits, ";t="...), Seconds(state.Wait), 10)
		if !state.Allowed {
			header.Set("Retry-After", strconv.FormatInt(Seconds(state.Wait), 10))
		}
	}
	header["Ratelimit"] = []string{string(limits)}
	header["Ratelimit-Policy"] = []string{string(policies)}
}

// Seconds rounds up: whoever waits so long does not come too early.
func Seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
