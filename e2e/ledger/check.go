package ledger

import (
	"fmt"
	"time"
)

// Check returns what the recorded answers have against the invariants I2, I3
// and I4, and every refusal of a token of a live session; empty: nothing. bound
// is how long after a revocation a request may still pass.
func Check(es Entries, bound time.Duration) (violations []string) {
	violations = append(violations, checkRegisters(es)...)
	ended, doubted := revocations(es)
	for _, e := range es.Of(Gate) {
		switch {
		case e.OK() && e.Wrong != "":
			violations = append(violations, fmt.Sprintf("I4: %s was let through: %s", e.Wrong, e))
		case e.Wrong != "":
		case e.OK():
			if at, ok := ended[e.Session]; ok && e.Sent > at+bound {
				violations = append(violations, fmt.Sprintf("I3: session %s was revoked %s before: %s", e.Session, e.Sent-at, e))
			}
		case e.Status == 401:
			if at, ok := doubted[e.Session]; !ok || e.Returned < at {
				violations = append(violations, fmt.Sprintf("the token of live session %s was refused: %s", e.Session, e))
			}
		case e.Status == 503 || e.Status == 0:
		default:
			violations = append(violations, fmt.Sprintf("nothing explains this answer: %s", e))
		}
	}
	return violations
}

// revocations says since when each session has certainly been revoked, and
// since when it may have been.
func revocations(es Entries) (ended, doubted map[string]time.Duration) {
	ended, doubted = make(map[string]time.Duration), make(map[string]time.Duration)
	for _, e := range es.Of(Revoke) {
		if at, ok := doubted[e.Session]; !ok || e.Sent < at {
			doubted[e.Session] = e.Sent
		}
		if at, ok := ended[e.Session]; e.OK() && (!ok || e.Returned < at) {
			ended[e.Session] = e.Returned
		}
	}
	return ended, doubted
}
