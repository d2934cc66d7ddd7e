package identity

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// ErrNotFromGate: the request does not show that it came through the gate. The
// text behind it says why, for the log.
var ErrNotFromGate = errors.New("the request did not come through the gate")

func notFromGate(why string) error { return fmt.Errorf("%w: %s", ErrNotFromGate, why) }

// maxToken bounds a token, in bytes: a header is not longer anywhere.
const maxToken = 16 << 10

// Keys finds the public keys of the issuer. authserver.Server does, for any
// issuer that can be reached.
type Keys interface {
	// FindKey returns the key with this kid. oauth.ErrUnknownKey: there is none; any
	// other error: nobody can say.
	FindKey(ctx context.Context, kid string) (*ecdsa.PublicKey, error)
}

// VerifierConfig makes a Verifier.
type VerifierConfig struct {
	Issuer   string // `iss` of the tokens. Required.
	Audience string // `aud` of the tokens: see oauth.UpstreamAudience. Required.
	Keys     Keys   // Required.
	// Header carries the token. Empty: X-Identity-Token.
	Header string
	// Hosts are those for which tokens may be, as clients name them, such as
	// api.example.com. nil: for the host of the request alone. It is needed where the
	// proxy changes Host, as Caddy does to an upstream over TLS.
	Hosts []string
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Verifier checks that requests came through the gate. Safe for concurrent use.
type Verifier struct{ cfg VerifierConfig }

// NewVerifier checks the configuration.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	switch {
	case cfg.Issuer == "" || cfg.Audience == "" || cfg.Keys == nil:
		return nil, errors.New("identity: Issuer, Audience and Keys are needed")
	case cfg.Header == "":
		cfg.Header = DefaultHeader
	}
	if err := oauth.CheckUpstreamAudience(cfg.Audience); err != nil {
		return nil, fmt.Errorf("identity: Audience %q %w", cfg.Audience, err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Verifier{cfg}, nil
}

// Verify returns who is calling. The error is ErrNotFromGate, or says why the keys
// cannot be had; then nobody knows. It looks at the request as it arrived: before
// anything has changed its method, path or query.
func (v *Verifier) Verify(r *http.Request) (Caller, error) {
	// 1. One token, of this one kind.
	fields := r.Header.Values(v.cfg.Header)
	if len(fields) != 1 {
		return Caller{}, notFromGate(fmt.Sprintf("%d headers %s", len(fields), v.cfg.Header))
	}
	token := fields[0]
	if len(token) > maxToken || strings.Count(token, ".") != 2 {
		return Caller{}, notFromGate("the token is no compact JWS")
	}
	message, err := jws.Parse([]byte(token), jws.WithCompact())
	if err != nil || len(message.Signatures()) != 1 {
		return Caller{}, notFromGate("the token is no compact JWS")
	}
	header := message.Signatures()[0].ProtectedHeaders()
	switch {
	case header.Algorithm() != jwa.ES256: // no key is ever tried with another
		return Caller{}, notFromGate("the token is not signed with ES256")
	case header.Type() != oauth.IdentityTokenType: // an access token, for one
		return Caller{}, notFromGate("the token is of another type")
	}
	// 2. Signed by a key of the issuer.
	key, err := v.cfg.Keys.FindKey(r.Context(), header.KeyID())
	switch {
	case errors.Is(err, oauth.ErrUnknownKey):
		return Caller{}, notFromGate(err.Error())
	case err != nil:
		return Caller{}, fmt.Errorf("keys of the gate: %w", err)
	}
	payload, err := jws.Verify([]byte(token), jws.WithKey(jwa.ES256, key))
	if err != nil {
		return Caller{}, notFromGate("the signature does not verify")
	}
	// 3. For us, now, and for this request.
	return v.check(r, payload)
}

// check judges what a genuine token says.
func (v *Verifier) check(r *http.Request, payload []byte) (Caller, error) {
	var said struct {
		claims
		IssuedAt  int64 `json:"iat"`
		ExpiresAt int64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &said); err != nil {
		return Caller{}, notFromGate("the claims are malformed")
	}
	arrived, now := targetOf(r), v.cfg.Now()
	if slices.Contains(v.cfg.Hosts, said.Host) {
		arrived.Host = said.Host
	}
	switch {
	case said.Issuer != v.cfg.Issuer:
		return Caller{}, notFromGate("the token is another issuer's")
	case said.Audience != v.cfg.Audience:
		return Caller{}, notFromGate("the token is for another upstream")
	case now.Add(-leeway).Unix() >= said.ExpiresAt:
		return Caller{}, notFromGate("the token has expired")
	case said.IssuedAt > now.Add(leeway).Unix():
		return Caller{}, notFromGate("the token is of the future")
	case said.ExpiresAt-said.IssuedAt > int64(maxLifetime/time.Second):
		return Caller{}, notFromGate("the token lives too long")
	case said.target != arrived:
		return Caller{}, notFromGate("the token is for another request")
	}
	return Caller{said.Subject, said.ClientID, said.SessionID, said.Scope, said.Claims}, nil
}

type callerKey struct{}

// FromContext returns the caller of a request that Handler let through. ok is
// false where no token was asked for.
func FromContext(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// Handler serves only what came through the gate, and has next find the caller by
// FromContext. Everything else gets 403, or 503 when the keys of the gate cannot
// be had. It stands before whatever changes the path.
func (v *Verifier) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := v.Verify(r)
		switch {
		case errors.Is(err, ErrNotFromGate):
			refuse(w, http.StatusForbidden, "access_denied", "This service is reached through its gate only.")
		case err != nil:
			w.Header().Set("Retry-After", "2")
			refuse(w, http.StatusServiceUnavailable, oauth.CodeTemporarilyUnavailable, "The caller cannot be verified right now. Try again shortly.")
		default:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller)))
		}
	})
}

func refuse(w http.ResponseWriter, status int, code, description string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": description})
}
