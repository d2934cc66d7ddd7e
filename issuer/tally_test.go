package issuer_test

import (
	"maps"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// heardTally is an issuer.Tally that remembers.
type heardTally struct {
	mu    sync.Mutex
	heard map[string]int
}

func (h *heardTally) note(words ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard[strings.Join(words, " ")]++
}

func (h *heardTally) Granted(grantType, outcome string) { h.note("grant", grantType, outcome) }
func (h *heardTally) Refused(endpoint, reason string)   { h.note("refusal", endpoint, reason) }
func (h *heardTally) SignedIn(method, outcome string)   { h.note("sign-in", method, outcome) }

// take returns what was heard since.
func (h *heardTally) take() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	heard := h.heard
	h.heard = make(map[string]int)
	return heard
}

// Each step is counted under words of the server, whatever the request says.
// MET-03.
func TestServerTalliesWhatItDid(t *testing.T) {
	t.Parallel()
	tally := &heardTally{heard: make(map[string]int)}
	scene := issuertest.New(t, issuertest.With(func(cfg *issuer.Config) { cfg.Tally = tally }))
	redeem := func(code, verifier string) {
		scene.PostForm("/oauth/token", codeForm(issuertest.Public, issuertest.PublicRedirect, code, verifier))
	}
	signIn := func(password string) {
		scene.Browser(t).Authorize(issuertest.Public).Press("Sign in", "email", issuertest.Email, "password", password)
	}
	tokens := scene.Tokens(t, issuertest.Public)
	code, verifier := scene.Code(t, issuertest.Public)
	tally.take()
	for _, step := range []struct {
		name string
		do   func()
		want map[string]int
	}{
		{"code", func() { redeem(code, verifier) }, map[string]int{"grant authorization_code issued": 1}},
		{"code again", func() { redeem(code, verifier) }, map[string]int{"grant authorization_code replayed": 1, "refusal /oauth/token invalid_grant": 1}},
		{"another code", func() { redeem("gpt_ac_none", verifier) }, map[string]int{"grant authorization_code invalid_grant": 1, "refusal /oauth/token invalid_grant": 1}},
		{"refresh", func() { refresh(scene, issuertest.Public, tokens.Refresh) }, map[string]int{"grant refresh_token issued": 1}},
		{"refresh long after", func() {
			scene.SQL(t, "UPDATE gpt_sessions SET rotated_at = rotated_at - interval '1 hour'")
			refresh(scene, issuertest.Public, tokens.Refresh)
		}, map[string]int{"grant refresh_token replayed": 1, "refusal /oauth/token invalid_grant": 1}},
		{"another grant", func() {
			scene.PostForm("/oauth/token", url.Values{"grant_type": {"canary-of-the-request"}, "client_id": {issuertest.Public}})
		}, map[string]int{"grant other unsupported_grant_type": 1, "refusal /oauth/token unsupported_grant_type": 1}},
		{"wrong secret", func() {
			scene.PostForm("/oauth/token", url.Values{"grant_type": {"refresh_token"}}, issuertest.Basic(issuertest.Confidential, "wrong"))
		}, map[string]int{"refusal /oauth/token invalid_client": 1}},
		{"unknown client at the door", func() { scene.Browser(t).Get("/oauth/authorize?client_id=canary-of-the-request") }, map[string]int{"refusal /oauth/authorize link": 1}},
		{"error to the client", func() { scene.Browser(t).Authorize(issuertest.Public, issuertest.Set("scope", "none:such")) },
			map[string]int{"refusal /oauth/authorize invalid_scope": 1}},
		{"signed in", func() { signIn(issuertest.Password) }, map[string]int{"sign-in password succeeded": 1}},
		{"wrong password", func() { signIn("wrong") }, map[string]int{"sign-in password failed": 1}},
		{"too many", func() {
			for range 5 {
				signIn("wrong")
			}
		}, map[string]int{"sign-in password failed": 4, "sign-in password throttled": 1}},
		{"no database", func() {
			scene.SQL(t, "ALTER TABLE gpt_sessions RENAME TO away")
			refresh(scene, issuertest.Public, tokens.Refresh)
			scene.SQL(t, "ALTER TABLE away RENAME TO gpt_sessions")
		}, map[string]int{"grant refresh_token temporarily_unavailable": 1, "refusal /oauth/token temporarily_unavailable": 1}},
	} {
		step.do()
		if got := tally.take(); !maps.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
}
