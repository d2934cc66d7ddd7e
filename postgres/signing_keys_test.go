//go:build unix

package postgres_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
)

var policy = issuer.KeyPolicy{RotateEvery: 24 * time.Hour, PublishFor: time.Hour, RetireFor: 20 * time.Minute}

func keyMaker(made *atomic.Int64) func() (issuer.SealedKey, error) {
	return func() (issuer.SealedKey, error) {
		kid := fmt.Sprintf("key-%d", made.Add(1))
		public, err := json.Marshal(map[string]string{"kid": kid})
		return issuer.SealedKey{KID: kid, Public: public, Sealed: []byte("sealed")}, err
	}
}

func phases(keys []issuer.SealedKey) string {
	text := ""
	for _, k := range keys {
		text += fmt.Sprintf("%s=%s ", k.KID, k.Phase)
	}
	return text
}

// K-04.
func TestNodesOnAnEmptyDatabaseMakeOneKey(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var made atomic.Int64
	parallel(16, func(int) {
		keys, err := s.store.MaintainSigningKeys(s.ctx, policy, keyMaker(&made))
		if err != nil || phases(keys) != "key-1=active " {
			t.Error(phases(keys), err)
		}
	})
}

// K-02: published before it signs, kept until its last token has expired.
func TestSigningKeysMoveThroughTheirPhases(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var made atomic.Int64
	step := func(want string, age time.Duration) {
		t.Helper()
		s.exec(`UPDATE gpt_signing_keys SET since = since - make_interval(secs => $1::float8)`, age.Seconds())
		keys, err := s.store.MaintainSigningKeys(s.ctx, policy, keyMaker(&made))
		if err != nil || phases(keys) != want {
			t.Fatalf("got %s, want %s, %v", phases(keys), want, err)
		}
	}
	step("key-1=active ", 0)
	step("key-1=active ", 22*time.Hour)
	step("key-1=active key-2=published ", 61*time.Minute)
	step("key-1=active key-2=published ", 59*time.Minute)
	step("key-1=retiring key-2=active ", time.Minute)
	step("key-1=retiring key-2=active ", 19*time.Minute)
	step("key-2=active ", time.Minute)
	if n := s.count(`SELECT count(*) FROM gpt_signing_keys WHERE kid = 'key-1' AND phase = 'gone' AND sealed IS NULL`); n != 1 {
		t.Error("the private part of a gone key is still there")
	}
	s.must(s.store.ResealSigningKey(s.ctx, "key-2", []byte("again")))
	if err := s.store.ResealSigningKey(s.ctx, "key-1", []byte("again")); err == nil {
		t.Error("a gone key was sealed again")
	}
	keys, err := s.store.PublishSigningKey(s.ctx, policy, false, keyMaker(&made))
	if err != nil || phases(keys) != "key-2=active key-3=published " {
		t.Fatal(phases(keys), err)
	}
	if keys, err = s.store.PublishSigningKey(s.ctx, policy, false, keyMaker(&made)); err != nil || phases(keys) != "key-2=active key-3=published " {
		t.Fatal("asked again:", phases(keys), err)
	}
	if _, err := s.store.ReplaceSigningKey(s.ctx, "key-2"); !errors.Is(err, issuer.ErrNotFound) {
		t.Fatal("replaced by itself:", err)
	}
	if keys, err = s.store.PublishSigningKey(s.ctx, policy, true, keyMaker(&made)); err != nil || phases(keys) != "key-2=active key-3=published key-4=published " {
		t.Fatal(phases(keys), err)
	}
	if keys, err = s.store.ReplaceSigningKey(s.ctx, "key-4"); err != nil || phases(keys) != "key-3=published key-4=active " {
		t.Fatal("after a compromise:", phases(keys), err)
	}
	if seen, err := s.store.SigningKeys(s.ctx); err != nil || phases(seen) != phases(keys) {
		t.Fatal("looked at:", phases(seen), err)
	}
	if _, err := s.sql.Exec(s.ctx, `UPDATE gpt_signing_keys SET phase = 'active' WHERE kid = 'key-3'`); err == nil {
		t.Error("two keys sign")
	}
}
