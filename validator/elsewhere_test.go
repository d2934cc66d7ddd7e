package validator_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// elsewhere is an authorization server that has to be asked, for keys and about
// tokens.
type elsewhere struct {
	*validatortest.Minter
	*validatortest.Sessions
	known bool  // the keys, without asking
	err   error // of asking for a key
	asked []string
}

func (e *elsewhere) VerificationKey(kid string) (*ecdsa.PublicKey, bool) {
	key, ok := e.Minter.VerificationKey(kid)
	return key, ok && e.known
}

func (e *elsewhere) FindKey(_ context.Context, kid string) (*ecdsa.PublicKey, error) {
	if e.err != nil {
		return nil, e.err
	}
	if key, ok := e.Minter.VerificationKey(kid); ok {
		e.known = true
		return key, nil
	}
	return nil, oauth.ErrUnknownKey
}

func (e *elsewhere) ReadTokenSession(ctx context.Context, token, resource string) (validator.Session, error) {
	e.asked = append(e.asked, token+" "+resource)
	return e.Sessions.ReadSession(ctx, validatortest.SessionID)
}

// UPS-09: where keys have to be asked for, a token whose key nobody can tell about
// is neither good nor bad: 503, and never a pass. One whose key does not exist is
// bad. It holds for tokens that were verified before, too.
func TestKeysThatCannotBeHadAreNoVerdict(t *testing.T) {
	t.Parallel()
	var e *elsewhere
	s := newScene(t, func(c *validator.Config) {
		e = &elsewhere{Minter: c.Keys.(*validatortest.Minter), Sessions: c.Sessions.(*validatortest.Sessions)}
		c.Keys, c.Sessions, c.Tokens = e, e, validator.NewTokenCache(10, 1<<20)
	})
	token := s.minter.Token(validatortest.Claims("jobs:read"))
	e.err = errors.New("connection refused")
	_, refusal := s.call("GET", "/jobs", token)
	wantRefusal(t, refusal, http.StatusServiceUnavailable, oauth.CodeTemporarilyUnavailable)
	e.err = nil
	if _, refusal = s.call("GET", "/jobs", token); refusal != nil {
		t.Fatal(refusal)
	}
	e.known, e.err = false, errors.New("connection refused")
	_, refusal = s.call("GET", "/jobs", token)
	wantRefusal(t, refusal, http.StatusServiceUnavailable, oauth.CodeTemporarilyUnavailable)
	e.err = oauth.ErrUnknownKey
	_, refusal = s.call("GET", "/jobs", token)
	wantRefusal(t, refusal, http.StatusUnauthorized, oauth.CodeInvalidToken)
}

// UPS-09: where sessions are asked about by tokens, the very token that came is
// shown, at the request and while its answer flows; a session of somebody else is
// none.
func TestSessionsAreAskedAboutByTheToken(t *testing.T) {
	t.Parallel()
	var e *elsewhere
	s := newScene(t, func(c *validator.Config) {
		e = &elsewhere{Minter: c.Keys.(*validatortest.Minter), Sessions: c.Sessions.(*validatortest.Sessions), known: true}
		c.Sessions = e
	})
	token := s.minter.Token(validatortest.Claims("jobs:read"))
	decision, refusal := s.call("GET", "/jobs", token)
	if refusal != nil {
		t.Fatal(refusal)
	}
	if err := s.Confirm(t.Context(), decision.Grant()); err != nil {
		t.Error(err)
	}
	if want := token + " " + validatortest.Resource; !slices.Equal(e.asked, []string{want, want}) {
		t.Errorf("asked about %q", e.asked)
	}
	e.Put(validatortest.SessionID, &validator.Session{UserID: "mallory", ClientID: validatortest.ClientID, Scopes: oauth.NewScopeSet("jobs:read")})
	_, refusal = s.call("GET", "/jobs", token)
	wantRefusal(t, refusal, http.StatusUnauthorized, oauth.CodeInvalidToken)
}
