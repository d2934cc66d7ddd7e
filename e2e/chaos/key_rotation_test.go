//go:build linux

package chaos

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// TestKeyRotationsRefuseNoValidToken: keys rotate on schedule under load, one
// after another; no token that was issued is refused at any node. Then they are
// replaced at once, as after a theft: every node refuses the tokens of the old
// key within the bound, and none refuses those of the new one, however soon
// they come. R-15.
func TestKeyRotationsRefuseNoValidToken(t *testing.T) {
	t.Parallel()
	load := moderate()
	load.KeepAll = true
	r := newRun(t, "R-15", cluster.Config{Nodes: pick(2, 3)}, load)
	rotations := rounds(2, 100)
	first := kid(t, r.c.SignIn(t, "kid@example.com").Connect(t, r.c.Nodes[0], "jobs:read"))
	for range rotations {
		r.c.Nodes[0].Command(t, "oauth", "key", "rotate")
		r.sleep(2 * time.Second) // in which the key is published; in real life an hour
		r.c.Postgres.Exec(t, `UPDATE gpt_signing_keys SET since = since - interval '2 hours' WHERE phase = 'published'`)
	}
	r.c.Nodes[0].Command(t, "oauth", "key", "rotate") // moves the last one on
	r.sleep(time.Second)
	r.settle()
	noted(t, "R-15", "rotations on schedule", rotations)
	exactly(t, "R-15", "keys that have signed since", postgrestest.Query[int](t, r.c.Postgres, `SELECT count(*) FROM gpt_signing_keys WHERE phase = 'retiring'`), rotations)

	user := r.c.SignIn(t, "theft@example.com")
	var refused, late, fresh int
	var slowest time.Duration
	for range rounds(1, 10) {
		stolen := user.Connect(t, r.c.Nodes[0], "jobs:read")
		old := kid(t, stolen)
		r.c.Nodes[0].Command(t, "oauth", "key", "rotate", "--now")
		replaced := time.Now()
		session := user.Connect(t, r.c.Nodes[0], "jobs:read")
		for i := 0; time.Since(replaced) < 2*bound; i++ {
			at, other := r.c.Nodes[i%len(r.c.Nodes)], r.c.Nodes[(i+1)%len(r.c.Nodes)]
			// The new key's tokens, at another node at once.
			next, answer := cluster.Refresh(t.Context(), at, session.Refresh)
			if !answer.OK() {
				t.Fatalf("refresh: %s", answer)
			}
			session = next
			if kid(t, next) != old {
				fresh++
				if answer := other.Get(t.Context(), "/jobs", next.Access); answer.Status == http.StatusUnauthorized {
					refused++
					t.Logf("a token of %s that is %s old, at %s: %s", at.Name, time.Since(answer.Sent), other.Name, answer)
				}
			}
			// The old key's tokens.
			if answer := other.Get(t.Context(), "/jobs", stolen.Access); answer.OK() {
				if since := answer.Sent.Sub(replaced); since > bound {
					late++
				} else {
					slowest = max(slowest, since)
				}
			}
		}
	}
	noted(t, "R-15", "replaced at once, times", rounds(1, 10))
	noted(t, "R-15", "tokens of a new key, used elsewhere at once", fresh)
	exactly(t, "R-15", "tokens of a new key that were refused", refused, 0)
	exactly(t, "R-15", "tokens of a replaced key that passed after the bound", late, 0)
	noted(t, "R-15", "a token of a replaced key still passed after", slowest)
	if fresh == 0 || kid(t, user.Connect(t, r.c.Nodes[0], "jobs:read")) == first {
		t.Error("no other key ever signed")
	}
}

// kid reads the key id of an access token.
func kid(t *testing.T, token cluster.Token) string {
	t.Helper()
	head, _, _ := strings.Cut(token.Access, ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		t.Fatal(err)
	}
	var header struct{ KID string }
	if err := json.Unmarshal(text, &header); err != nil || header.KID == "" {
		t.Fatalf("header of a token: %s %v", text, err)
	}
	return header.KID
}
