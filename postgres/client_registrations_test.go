//go:build unix

package postgres_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// register stores a client that registered itself.
func (s *scene) register(id string) {
	s.Helper()
	s.must(s.store.RegisterClient(s.ctx, issuer.ClientRegistration{ClientID: id, Metadata: []byte(`{}`), AccessToken: sha256.Sum256([]byte(id))}, 90*24*time.Hour, issuer.Origin{}))
}

func (s *scene) keep(id string) {
	s.Helper()
	s.must(s.store.KeepDocument(s.ctx, issuer.ClientDocument{ClientID: id, Body: []byte("{}"), Fresh: time.Hour}, 90*24*time.Hour, issuer.Origin{}))
}

// D-06: what nobody uses goes, what somebody uses stays, whatever its age.
func TestUnusedClientsGo(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	goes := map[string]bool{} // by client_id
	for id, aged := range map[string]struct {
		sql  string
		goes bool
	}{
		"new":                       {"", false},
		"never used, two days old":  {"issued_at = now() - interval '2 days'", true},
		"never used, hours old":     {"issued_at = now() - interval '20 hours'", false},
		"used lately":               {"issued_at = now() - interval '1 year', used_at = now() - interval '89 days'", false},
		"used long ago":             {"issued_at = now() - interval '1 year', used_at = now() - interval '91 days'", true},
		"used long ago, alive":      {"issued_at = now() - interval '1 year', used_at = now() - interval '91 days'", false},
		"used long ago, just ended": {"issued_at = now() - interval '1 year', used_at = now() - interval '91 days'", false},
		"used long ago, ended":      {"issued_at = now() - interval '1 year', used_at = now() - interval '91 days'", true},
		"disabled":                  {"issued_at = now() - interval '1 year'", false},
	} {
		for _, client := range []string{"dcr_" + id, "https://chat.example/" + id} {
			goes[client] = aged.goes
			table := "gpt_client_documents"
			if client[:4] == "dcr_" {
				table = "gpt_client_registrations"
				s.register(client)
			} else {
				s.keep(client)
			}
			if aged.sql != "" {
				s.exec("UPDATE "+table+" SET "+aged.sql+" WHERE client_id = $1", client)
			}
			session := `INSERT INTO gpt_sessions (user_id, client_id, expires_at, last_active, revoked_at) VALUES ('u', $1, now() + interval '1 day', `
			switch id {
			case "used long ago, alive":
				s.exec(session+"now() - interval '91 days', NULL)", client)
			case "used long ago, just ended":
				s.exec(session+"now(), now())", client)
			case "used long ago, ended":
				s.exec(session+"now() - interval '91 days', now())", client)
			case "disabled":
				s.exec("UPDATE gpt_clients SET disabled_at = now() WHERE client_id = $1", client)
			}
		}
	}
	s.must(postgres.NewUpkeep(s.db).Clean(s.ctx))
	for client, goes := range goes {
		if gone := s.count("SELECT count(*) FROM gpt_clients WHERE client_id = $1", client) == 0; gone != goes {
			t.Errorf("%s: gone %v, want %v", client, gone, goes)
		}
	}
}

// A client that an owner wrote down since does not go, whatever it was before.
func TestConfiguredClientIsNoDocument(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const id = "https://chat.example/client.json"
	s.keep(id)
	s.exec("UPDATE gpt_client_documents SET issued_at = now() - interval '1 year'")
	s.must(s.store.EnsureClients(s.ctx, []postgres.ClientRow{{ID: id, Name: "Chat"}}))
	s.must(postgres.NewUpkeep(s.db).Clean(s.ctx))
	if n := s.count("SELECT count(*) FROM gpt_clients WHERE client_id = $1", id); n != 1 {
		t.Error("it is gone")
	}
}

// A hundred registrations at once do not each take the last place.
func TestLastPlaceIsTakenOnce(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.exec(`WITH c AS (INSERT INTO gpt_clients (client_id) SELECT 'dcr_flood' || n FROM generate_series(1, 9997) n RETURNING client_id)
		INSERT INTO gpt_client_registrations (client_id, metadata, token_hash, unused_ttl) SELECT client_id, '{}', sha256('x'), '1 day' FROM c`)
	var stored, refused atomic.Int32
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			var err error
			if id := fmt.Sprintf("dcr_%d", i); i%2 == 0 {
				err = s.store.RegisterClient(s.ctx, issuer.ClientRegistration{ClientID: id, Metadata: []byte(`{}`)}, time.Hour, issuer.Origin{})
			} else {
				err = s.store.KeepDocument(s.ctx, issuer.ClientDocument{ClientID: "https://a.example/" + id, Body: []byte("{}"), Fresh: time.Hour}, time.Hour, issuer.Origin{})
			}
			switch {
			case err == nil:
				stored.Add(1)
			case errors.Is(err, issuer.ErrTooManyClients):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if stored.Load() != 3 || refused.Load() != 37 {
		t.Errorf("%d stored, %d refused", stored.Load(), refused.Load())
	}
	if n := s.count("SELECT count(*) FROM gpt_clients WHERE client_id LIKE 'dcr_%' OR client_id LIKE 'https:%'"); n != 10_000 {
		t.Errorf("%d rows: a refused one left something behind", n)
	}
}

// Through a transaction pooler, where nothing is prepared, all steps work as well.
func TestRegistrationStepsWithoutNamedStatements(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(c *postgres.Config) { c.Pooled = true })
	s.register("dcr_a")
	found, err := s.store.FindRegistration(s.ctx, "dcr_a")
	s.must(err)
	secret := issuer.HashClientSecret("secret")
	found.Metadata, found.Secret = []byte(`{"a":1}`), &secret
	s.must(s.store.UpdateRegistration(s.ctx, found, issuer.Origin{}))
	again, err := s.store.FindRegistration(s.ctx, "dcr_a")
	s.must(err)
	if string(again.Metadata) != `{"a":1}` || again.Secret == nil || *again.Secret != secret {
		t.Errorf("%+v", again)
	}
	s.keep("https://chat.example/c")
	document, err := s.store.FindDocument(s.ctx, "https://chat.example/c")
	s.must(err)
	if string(document.Body) != "{}" || document.Fresh < 59*time.Minute || document.Disabled {
		t.Errorf("%+v", document)
	}
	s.must(s.store.DropDocument(s.ctx, "https://chat.example/c"))
	if document, err = s.store.FindDocument(s.ctx, "https://chat.example/c"); err != nil || document.Fresh > 0 {
		t.Errorf("%+v %v", document, err)
	}
	revision := issuer.Digest(sha256.Sum256([]byte("a")))
	s.must(s.store.ApproveClient(s.ctx, "dcr_a", s.user.ID, revision))
	if got, err := s.store.ClientApproval(s.ctx, "dcr_a", s.user.ID); err != nil || got != revision {
		t.Errorf("%x %v", got, err)
	}
	if err := s.store.ApproveClient(s.ctx, "dcr_gone", s.user.ID, revision); !errors.Is(err, issuer.ErrNotFound) {
		t.Errorf("%v", err)
	}
	s.exec("UPDATE gpt_clients SET disabled_at = now() WHERE client_id = 'https://chat.example/c'")
	if err := s.store.KeepDocument(s.ctx, issuer.ClientDocument{ClientID: "https://chat.example/c", Body: []byte("{}"), Fresh: time.Hour}, time.Hour, issuer.Origin{}); !errors.Is(err, issuer.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if err := s.store.DeleteRegistration(s.ctx, "dcr_a", issuer.Digest{}, issuer.Origin{}); !errors.Is(err, issuer.ErrNotFound) {
		t.Errorf("another's token: %v", err)
	}
	s.must(s.store.DeleteRegistration(s.ctx, "dcr_a", sha256.Sum256([]byte("dcr_a")), issuer.Origin{}))
	if _, err := s.store.FindRegistration(s.ctx, "dcr_a"); !errors.Is(err, issuer.ErrNotFound) {
		t.Errorf("%v", err)
	}
}
