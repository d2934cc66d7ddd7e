//go:build linux

package chaos

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// TestTokensWithoutEndFindABound: more distinct valid tokens than a node may
// keep, a million in the long form, each admitted. What the node holds stops
// growing at the bound of the kept tokens.
func TestTokensWithoutEndFindABound(t *testing.T) {
	t.Parallel()
	const bound = 64 << 20 // of kept tokens, in bytes
	tokens, sessions := pick(4_000, 1_000_000), pick(100, 10_000)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := cluster.New(t, cluster.Config{Nodes: 1, Options: "signing_key " + pemOf(t, key)})
	node := c.Nodes[0]
	ids := insertSessions(t, c, sessions)
	kid, err := issuer.KeyID(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	minter := validatortest.Minter{Key: key}
	header := `{"alg":"ES256","kid":"` + kid + `","typ":"at+jwt"}`
	mint := func(i int) string {
		now := time.Now().Unix()
		payload, err := json.Marshal(map[string]any{
			"iss": c.Issuer, "aud": c.Issuer, "sub": "user-1", "client_id": cluster.ClientID, "sid": ids[i%len(ids)], "scope": "jobs:read",
			"jti": uuid.NewString(), "iat": now, "exp": now + 900,
		})
		if err != nil {
			t.Error(err)
		}
		return minter.Sign(header, string(payload))
	}
	var refused atomic.Int64
	flood := func(from, to int) {
		var next atomic.Int64
		next.Store(int64(from))
		var callers sync.WaitGroup
		for range 16 {
			callers.Go(func() {
				for i := int(next.Add(1)) - 1; i < to; i = int(next.Add(1)) - 1 {
					if answer := node.Get(context.Background(), "/jobs", mint(i)); answer.Status != http.StatusOK {
						refused.Add(1)
						t.Log(answer)
					}
				}
			})
		}
		callers.Wait()
	}
	flood(0, 100) // connections, and what is made once
	before := node.Usage(t)
	start := time.Now()
	var held []int64
	for part := range 10 {
		flood(part*tokens/10, (part+1)*tokens/10)
		held = append(held, (node.Usage(t).Heap-before.Heap)>>20)
	}
	noted(t, "tokens", "distinct valid tokens", tokens)
	exactly(t, "tokens", "refused", refused.Load(), 0)
	noted(t, "tokens", "a second, first sight of each", int(float64(tokens)/time.Since(start).Seconds()))
	noted(t, "tokens", "heap in MiB over that before the first, after each tenth", held)
	atMost(t, "tokens", "heap in MiB over that before the first, after the last", held[9], 2*bound>>20)
	atMost(t, "tokens", "of that, in MiB, since half of them were seen", held[9]-held[4], max(8, bound>>20/10))
}

// pemOf is the key as the word signing_key takes it.
func pemOf(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// insertSessions makes live sessions without the way that leads to them.
func insertSessions(t *testing.T, c *cluster.Cluster, n int) (ids []string) {
	t.Helper()
	c.Postgres.Exec(t, `INSERT INTO gpt_sessions (user_id, client_id, scopes, granted_scopes, expires_at)
		SELECT 'user-1', $1, '{jobs:read}', '{jobs:read}', now() + interval '1 day' FROM generate_series(1, $2)`, cluster.ClientID, n)
	return postgrestest.Query[[]string](t, c.Postgres, `SELECT array_agg(id::text) FROM gpt_sessions`)
}
