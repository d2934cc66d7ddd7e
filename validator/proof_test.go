package validator_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/dpop/dpoptest"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// heldProofs is a dpop.Store in memory.
type heldProofs struct {
	used sync.Map
	err  error
	uses int
}

func (h *heldProofs) UseProof(_ context.Context, digest [32]byte, _ time.Duration) error {
	h.uses++
	if h.err != nil {
		return h.err
	}
	if _, again := h.used.LoadOrStore(digest, true); again {
		return dpop.ErrReplayed
	}
	return nil
}

// boundScene is a gate and a token that is bound to a key.
type boundScene struct {
	*scene
	proofs   *heldProofs
	verifier *dpop.Verifier
	key      *dpoptest.Key
	token    string
}

func newBoundScene(t *testing.T, change ...func(*validator.Config)) *boundScene {
	t.Helper()
	b := &boundScene{proofs: &heldProofs{}, key: dpoptest.NewKey(t, "ES256")}
	b.verifier = &dpop.Verifier{Nonces: dpop.NewNonces(time.Now, []byte("key")), Store: b.proofs, Now: time.Now}
	b.scene = newScene(t, append(change, func(cfg *validator.Config) { cfg.Proofs = func() *dpop.Verifier { return b.verifier } })...)
	b.token = b.bound(b.key.Thumbprint())
	return b
}

func (b *boundScene) bound(thumbprint string) string {
	return b.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "cnf", map[string]string{"jkt": thumbprint}))
}

func (b *boundScene) proof(key *dpoptest.Key, changes ...dpoptest.Change) string {
	return key.Proof("GET", validatortest.Resource+"/jobs", append([]dpoptest.Change{dpoptest.For(b.token), dpoptest.Nonce(b.verifier.Nonces.Current())}, changes...)...)
}

// send asks for GET /jobs.
func (b *boundScene) send(authorization string, proofs ...string) (validator.Decision, *validator.Refusal) {
	r := request("GET", "/jobs?page=2")
	r.Header.Set("Authorization", authorization)
	for _, proof := range proofs {
		r.Header.Add("DPoP", proof)
	}
	return b.decide(r)
}

func challengeOf(refusal *validator.Refusal) http.Header {
	w := httptest.NewRecorder()
	validator.WriteRefusal(w, request("GET", "/jobs"), refusal)
	return w.Header()
}

// P-23: a bound token passes with a proof of its key, once.
func TestGateTakesABoundTokenWithItsProof(t *testing.T) {
	t.Parallel()
	b := newBoundScene(t)
	for _, scheme := range []string{"DPoP ", "dpop "} {
		decision, refusal := b.send(scheme+b.token, b.proof(b.key))
		if refusal != nil || decision.Identity.UserID != validatortest.UserID || decision.NextNonce != "" {
			t.Errorf("%s: %+v %v", scheme, decision, refusal)
		}
	}
	used := b.proof(b.key)
	if _, refusal := b.send("DPoP "+b.token, used); refusal != nil {
		t.Fatal(refusal)
	}
	_, refusal := b.send("DPoP "+b.token, used)
	wantRefusal(t, refusal, 401, "invalid_dpop_proof")
}

// P-02, P-03, P-25: what is no proof of the token's key does not pass, and is told why
// in the scheme that it needs.
func TestGateRefusesBoundTokensWithoutTheirProof(t *testing.T) {
	t.Parallel()
	b := newBoundScene(t)
	bearer := b.minter.Token(validatortest.Claims("jobs:read"))
	thief := dpoptest.NewKey(t, "ES256")
	twofold := b.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "cnf", map[string]string{"jkt": b.key.Thumbprint(), "x5t#S256": "x"}))
	for name, c := range map[string]struct {
		authorization string
		proofs        []string
		code          string
	}{
		"bound token as Bearer":            {"Bearer " + b.token, nil, "invalid_token"},
		"bound token as Bearer, with one":  {"Bearer " + b.token, []string{b.proof(b.key)}, "invalid_token"},
		"no proof":                         {"DPoP " + b.token, nil, "invalid_dpop_proof"},
		"two proofs":                       {"DPoP " + b.token, []string{b.proof(b.key), b.proof(b.key)}, "invalid_dpop_proof"},
		"garbage":                          {"DPoP " + b.token, []string{"x"}, "invalid_dpop_proof"},
		"another key":                      {"DPoP " + b.token, []string{b.proof(thief)}, "invalid_token"},
		"bearer token as DPoP":             {"DPoP " + bearer, []string{b.proof(b.key, dpoptest.For(bearer))}, "invalid_token"},
		"no ath":                           {"DPoP " + b.token, []string{b.proof(b.key, dpoptest.Claim("ath", nil))}, "invalid_dpop_proof"},
		"another method":                   {"DPoP " + b.token, []string{b.proof(b.key, dpoptest.Claim("htm", "POST"))}, "invalid_dpop_proof"},
		"another path":                     {"DPoP " + b.token, []string{b.proof(b.key, dpoptest.Claim("htu", validatortest.Resource+"/resume"))}, "invalid_dpop_proof"},
		"the host of the request":          {"DPoP " + b.token, []string{b.proof(b.key, dpoptest.Claim("htu", "http://example.com/jobs"))}, "invalid_dpop_proof"},
		"bound to more than we can check":  {"DPoP " + twofold, []string{b.proof(b.key, dpoptest.For(twofold))}, "invalid_token"},
		"garbage instead of an own token":  {"DPoP x", []string{b.proof(b.key)}, "invalid_token"},
		"confirmation that nobody can see": {"Bearer " + b.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "cnf", map[string]string{"x5t#S256": "x"})), nil, "invalid_token"},
	} {
		decision, refusal := b.send(c.authorization, c.proofs...)
		wantRefusal(t, refusal, 401, c.code)
		if decision.Authenticated() {
			t.Errorf("%s: an identity came with the refusal", name)
		}
		challenge := challengeOf(refusal).Get("WWW-Authenticate")
		if name != "confirmation that nobody can see" && !strings.HasPrefix(challenge, `DPoP algs="ES256 EdDSA RS256", error="`+c.code+`"`) {
			t.Errorf("%s: %s", name, challenge)
		}
	}
	if b.proofs.uses != 0 {
		t.Errorf("%d refused requests cost a write", b.proofs.uses)
	}
}

// P-21, RFC 9449 sections 8 and 9: the client is told the nonce, and the next one in
// time.
func TestGateGivesNonces(t *testing.T) {
	t.Parallel()
	b := newBoundScene(t)
	_, refusal := b.send("DPoP "+b.token, b.proof(b.key, dpoptest.Claim("nonce", nil)))
	wantRefusal(t, refusal, 401, "use_dpop_nonce")
	header := challengeOf(refusal)
	if header.Get("DPoP-Nonce") != b.verifier.Nonces.Current() || !strings.Contains(header.Get("Access-Control-Expose-Headers"), "DPoP-Nonce") {
		t.Errorf("%v", header)
	}
	if _, refusal := b.send("DPoP "+b.token, b.proof(b.key, dpoptest.Nonce(header.Get("DPoP-Nonce")))); refusal != nil {
		t.Error(refusal)
	}
	later := func() time.Time { return time.Now().Add(5 * time.Minute) }
	old := b.verifier.Nonces.Current()
	b.verifier.Nonces = dpop.NewNonces(later, []byte("key"))
	decision, refusal := b.send("DPoP "+b.token, b.proof(b.key, dpoptest.Nonce(old)))
	if refusal != nil || decision.NextNonce != b.verifier.Nonces.Current() {
		t.Errorf("%+v %v", decision, refusal)
	}
}

// A proof is used last: what would not pass anyway leaves no trace. And a store
// that is down lets nobody in (P-04).
func TestGateUsesTheProofLast(t *testing.T) {
	t.Parallel()
	b := newBoundScene(t)
	b.sessions.End(validatortest.SessionID)
	_, refusal := b.send("DPoP "+b.token, b.proof(b.key))
	wantRefusal(t, refusal, 401, "invalid_token")
	b.sessions.Put(validatortest.SessionID, &validator.Session{UserID: validatortest.UserID, ClientID: validatortest.ClientID})
	_, refusal = b.send("DPoP "+b.token, b.proof(b.key))
	wantRefusal(t, refusal, 403, "insufficient_scope")
	if challenge := challengeOf(refusal).Get("WWW-Authenticate"); !strings.HasPrefix(challenge, "DPoP ") || !strings.Contains(challenge, `scope="jobs:read"`) {
		t.Error(challenge)
	}
	if b.proofs.uses != 0 {
		t.Errorf("%d refused requests cost a write", b.proofs.uses)
	}
	b = newBoundScene(t)
	b.proofs.err = errors.New("down")
	_, refusal = b.send("DPoP "+b.token, b.proof(b.key))
	wantRefusal(t, refusal, 503, "temporarily_unavailable")
}

// P-24: what stands before the gate may have rewritten the path; the proof names what
// the client sent.
func TestProofNamesThePathThatTheClientSent(t *testing.T) {
	t.Parallel()
	b := newBoundScene(t, func(cfg *validator.Config) { cfg.RequestPath = func(*http.Request) string { return "/v1/jobs" } })
	if _, refusal := b.send("DPoP "+b.token, b.proof(b.key, dpoptest.Claim("htu", validatortest.Resource+"/v1/jobs"))); refusal != nil {
		t.Error(refusal)
	}
	_, refusal := b.send("DPoP "+b.token, b.proof(b.key))
	wantRefusal(t, refusal, 401, "invalid_dpop_proof")
}

// A gate that was given no verifier refuses bound tokens.
func TestGateWithoutProofsRefusesBoundTokens(t *testing.T) {
	t.Parallel()
	b := newBoundScene(t)
	b.scene = newScene(t)
	b.token = b.bound(b.key.Thumbprint())
	_, refusal := b.send("DPoP "+b.token, b.proof(b.key))
	wantRefusal(t, refusal, 401, "invalid_token")
	_, refusal = b.send("Bearer " + b.token)
	wantRefusal(t, refusal, 401, "invalid_token")
}
