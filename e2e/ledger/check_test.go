package ledger

import (
	"strings"
	"testing"
	"time"
)

// history makes entries of one session and one code, a second after another.
// Times can be set by the case.
func history(entries ...Entry) Entries {
	for i := range entries {
		e := &entries[i]
		if e.Sent == 0 {
			e.Sent = time.Duration(i+1) * time.Second
		}
		if e.Returned == 0 {
			e.Returned = e.Sent + 100*time.Millisecond
		}
		if e.Session == "" {
			e.Session = "s"
		}
		if e.Kind == Redeem {
			e.Code = "c"
		}
	}
	return entries
}

var (
	redeemed  = Entry{Kind: Redeem, Status: 200, Refresh: "r0"}
	first     = Entry{Kind: Refresh, Status: 200, Presented: "r0", Refresh: "r1"}
	second    = Entry{Kind: Refresh, Status: 200, Presented: "r1", Refresh: "r2"}
	unheard   = Entry{Kind: Refresh, Presented: "r0", Failure: "EOF"}
	refused   = Entry{Kind: Refresh, Status: 400, Presented: "r0"}
	revoked   = Entry{Kind: Revoke, Status: 200}
	unrevoked = Entry{Kind: Revoke, Failure: "EOF"}
	passed    = Entry{Kind: Gate, Status: 200}
	denied    = Entry{Kind: Gate, Status: 401}
)

// TestCheckFindsNothingInHonestHistories, also in those with unknown outcomes.
func TestCheckFindsNothingInHonestHistories(t *testing.T) {
	t.Parallel()
	for name, entries := range map[string]Entries{
		"a life":                           history(redeemed, passed, first, passed, second, revoked, denied),
		"the same successor in the grace":  history(redeemed, first, first),
		"unheard, then the same again":     history(redeemed, unheard, unheard, first, second),
		"unheard, and never executed":      history(redeemed, unheard, second0("r0", "r9")),
		"revoked perhaps, and it was":      history(redeemed, unrevoked, denied, refused),
		"revoked perhaps, and it was not":  history(redeemed, unrevoked, passed, first),
		"a code redeemed unheard":          history(Entry{Kind: Redeem, Failure: "EOF"}, Entry{Kind: Redeem, Status: 400}),
		"within the bound":                 history(redeemed, revoked, Entry{Kind: Gate, Status: 200, Sent: 2600 * time.Millisecond}),
		"unavailable":                      history(redeemed, Entry{Kind: Gate, Status: 503}),
		"refused what must not pass":       history(Entry{Kind: Gate, Status: 403, Wrong: "no rule"}),
		"late effect of an unheard revoke": history(redeemed, Entry{Kind: Revoke, Failure: "EOF"}, first, refused),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if found := Check(entries, time.Second); len(found) > 0 {
				t.Error(strings.Join(found, "\n"))
			}
		})
	}
}

func second0(presented, refresh string) Entry {
	return Entry{Kind: Refresh, Status: 200, Presented: presented, Refresh: refresh}
}

// TestCheckFindsEveryViolation: each invariant can fail.
func TestCheckFindsEveryViolation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		want    string
		entries Entries
	}{
		"a code redeemed twice":             {"I2: no order explains the redemptions", history(redeemed, redeemed)},
		"an unused code refused":            {"I2: no order explains the redemptions", history(Entry{Kind: Redeem, Status: 400}, redeemed)},
		"two successors of one token":       {"I2: no order explains the refreshes", history(redeemed, first, second0("r0", "r9"))},
		"an old token lives":                {"I2: no order explains the refreshes", history(redeemed, first, second, first)},
		"a live token refused":              {"I2: no order explains the refreshes", history(redeemed, refused)},
		"an unheard refresh lost the token": {"I2: no order explains the refreshes", history(redeemed, unheard, refused)},
		"a revocation forgotten":            {"I2: no order explains the refreshes", history(redeemed, revoked, first)},
		"a refresh undone":                  {"I2: no order explains the refreshes", history(redeemed, first, unheard, second0("r0", "r5"))},
		"let through after the bound":       {"I3", history(redeemed, revoked, Entry{Kind: Gate, Status: 200, Sent: 3200 * time.Millisecond})},
		"let through without a rule":        {"I4", history(Entry{Kind: Gate, Status: 200, Wrong: "no rule"})},
		"a live token refused at the gate":  {"the token of live session", history(redeemed, denied)},
		"refused before it was revoked":     {"the token of live session", history(redeemed, denied, revoked)},
		"an answer of somebody else":        {"nothing explains", history(redeemed, Entry{Kind: Gate, Status: 502})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := strings.Join(Check(c.entries, time.Second), "\n")
			if !strings.Contains(found, c.want) {
				t.Errorf("found %q, want %s", found, c.want)
			}
		})
	}
}
