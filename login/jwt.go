package login

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-scope/caddy-scope/issuer"
)

const (
	// maxToken bounds the token of an app, in bytes: four cookies, as browsers
	// bound those.
	maxToken = 16 << 10
	// tokenLeeway forgives clocks that differ between app and node.
	tokenLeeway = 5 * time.Second
)

// JWTConfig makes a JWT.
type JWTConfig struct {
	// Cookie or Header is where the app keeps its token: one of them. A cookie may
	// come in pieces (name.0, name.1) and hold what @supabase/ssr writes.
	Cookie, Header string
	// Issuer is `iss` of the tokens. Required.
	Issuer string
	// Audience: one of them must be in `aud`. nil: tokens must have no `aud`.
	Audience []string
	// AuthorizedParties: `azp` must be one of them. nil: it is not looked at.
	AuthorizedParties []string
	// JWKS is the address of the public keys, or Secret the shared key: one of
	// them.
	JWKS, Secret string
	// Algorithms that tokens may be signed with. nil: of JWKS every asymmetric one
	// that its keys are for; of Secret HS256.
	Algorithms []string
	// Claims says which claims matter.
	Claims Claims
	Return
	// Timeout bounds reading the keys. Zero: DefaultTimeout.
	Timeout time.Duration
	// Now is the clock of the node. nil: time.Now.
	Now func() time.Time
}

// JWT signs users in by the token that the owner's own app has given their
// browser.
type JWT struct {
	cfg        JWTConfig
	algorithms []jose.SignatureAlgorithm
	keys       *remoteKeys // nil: the secret
}

var _ issuer.App = (*JWT)(nil)

// symmetric are the algorithms of shared keys. No key is ever tried with both
// kinds: a public key must not pass for a secret (RFC 8725 section 3.1).
var symmetric = []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512}

// minSecret is the least that a shared key may have, in bytes. RFC 7518 section
// 3.2.
var minSecret = map[jose.SignatureAlgorithm]int{jose.HS256: 32, jose.HS384: 48, jose.HS512: 64}

// NewJWT checks the configuration. It sends nothing.
func NewJWT(cfg JWTConfig) (*JWT, error) {
	switch {
	case (cfg.Cookie == "") == (cfg.Header == ""):
		return nil, errors.New("say where the app's token is: cookie <name> or header <name>, one of them")
	case cfg.Header != "" && !isHeaderName(cfg.Header):
		return nil, fmt.Errorf("header %q is not a header name", cfg.Header)
	case cfg.Cookie != "" && (!isHeaderName(cfg.Cookie) || isOurCookie(cfg.Cookie)):
		return nil, fmt.Errorf("cookie %q is not the name of a cookie of the app", cfg.Cookie)
	case cfg.Issuer == "":
		return nil, errors.New("issuer is missing: what the app's tokens have as iss")
	case (cfg.JWKS == "") == (cfg.Secret == ""):
		return nil, errors.New("say what verifies the app's tokens: jwks <url> or secret <text>, one of them")
	}
	if err := cfg.Return.check(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	j := &JWT{cfg: cfg, algorithms: []jose.SignatureAlgorithm{jose.HS256}}
	known := symmetric
	if cfg.JWKS != "" {
		if err := checkURL("jwks", cfg.JWKS); err != nil {
			return nil, err
		}
		j.keys = &remoteKeys{url: cfg.JWKS, client: newClient(cfg.Timeout, maxBody), now: cfg.Now}
		j.algorithms, known = asymmetric, asymmetric
	}
	if cfg.Algorithms != nil {
		j.algorithms = nil
	}
	for _, name := range cfg.Algorithms {
		if !slices.Contains(known, jose.SignatureAlgorithm(name)) {
			return nil, fmt.Errorf("algorithm %q does not fit the keys; possible are %v", name, known)
		}
		j.algorithms = append(j.algorithms, jose.SignatureAlgorithm(name))
	}
	for _, algorithm := range j.algorithms {
		if least := minSecret[algorithm]; j.keys == nil && len(cfg.Secret) < least {
			return nil, fmt.Errorf("secret has less than %d bytes, so that tokens signed with %s could be forged by trying", least, algorithm)
		}
	}
	return j, nil
}

// Identify is described at issuer.App. A token that has expired, or that the app
// did not sign, is none: the app gives a new one.
func (j *JWT) Identify(ctx context.Context, header http.Header) (issuer.ExternalUser, error) {
	var none issuer.ExternalUser
	token, err := j.token(header)
	if err != nil {
		return none, signedOut(err)
	}
	payload, err := j.verify(ctx, token)
	if err != nil {
		return none, err
	}
	claims, err := readClaims(payload)
	if err != nil {
		return none, signedOut(err)
	}
	if err := j.check(claims); err != nil {
		return none, signedOut(err)
	}
	user, err := j.cfg.Claims.UserOf(j.cfg.Issuer, claims)
	if err != nil {
		return none, refused("%w", err)
	}
	return user, nil
}

func signedOut(why error) error { return fmt.Errorf("%w: %w", issuer.ErrSignedOut, why) }

// token takes the token out of the request.
func (j *JWT) token(header http.Header) (string, error) {
	if j.cfg.Cookie != "" {
		value, err := cookieValue(header, j.cfg.Cookie)
		if err != nil {
			return "", err
		}
		return sessionToken(value)
	}
	fields := header.Values(j.cfg.Header)
	switch {
	case len(fields) == 0:
		return "", errors.New("the header is not there")
	case len(fields) > 1:
		return "", errors.New("the header is there twice")
	}
	scheme, rest, found := strings.Cut(fields[0], " ")
	if found && strings.EqualFold(scheme, "Bearer") {
		return rest, nil
	}
	return fields[0], nil
}

// verify returns the payload of a token that a key of the app has signed.
func (j *JWT) verify(ctx context.Context, token string) ([]byte, error) {
	if len(token) > maxToken {
		return nil, signedOut(errors.New("the token is too large"))
	}
	signed, err := jose.ParseSignedCompact(token, j.algorithms)
	if err != nil {
		return nil, signedOut(errors.New("the token is not signed by an algorithm that is allowed"))
	}
	if j.keys == nil {
		payload, err := signed.Verify([]byte(j.cfg.Secret))
		if err != nil {
			return nil, signedOut(errors.New("the signature does not verify"))
		}
		return payload, nil
	}
	if _, _, err := j.keys.current(ctx, false); err != nil {
		return nil, err // nobody can say
	}
	payload, err := j.keys.VerifySignature(ctx, token)
	if err != nil {
		return nil, signedOut(err)
	}
	return payload, nil
}

// check holds the claims against the configuration. RFC 7519 section 4.1, RFC
// 8725 sections 3.8 and 3.9.
func (j *JWT) check(claims map[string]any) error {
	now := j.cfg.Now()
	expires, dated := instant(claims, "exp")
	notBefore, hasNotBefore := instant(claims, "nbf")
	issuedAt, hasIssuedAt := instant(claims, "iat")
	_, saysNotBefore := claims["nbf"]
	_, saysIssuedAt := claims["iat"]
	switch {
	case claims["iss"] != j.cfg.Issuer:
		return errors.New("the token is of another issuer")
	case !j.fits(claims["aud"]):
		return errors.New("the token is for another audience")
	case j.cfg.AuthorizedParties != nil && !holdsOne(text(claims["azp"]), j.cfg.AuthorizedParties):
		return errors.New("the token is of another authorized party")
	case !dated || !now.Before(expires.Add(tokenLeeway)):
		return errors.New("the token has expired, or does not say when it does")
	case saysNotBefore && (!hasNotBefore || notBefore.After(now.Add(tokenLeeway))):
		return errors.New("the token is not valid yet")
	case saysIssuedAt && (!hasIssuedAt || issuedAt.After(now.Add(tokenLeeway))):
		return errors.New("the token is of the future")
	}
	return nil
}

// fits reports whether `aud` is as configured. Where no audience is, a token that
// has one was not made for us.
func (j *JWT) fits(audience any) bool {
	if len(j.cfg.Audience) == 0 {
		return audience == nil
	}
	return holdsOne(audience, j.cfg.Audience)
}

// instant reads a time in seconds.
func instant(claims map[string]any, name string) (time.Time, bool) {
	number, ok := claims[name].(json.Number)
	if !ok {
		return time.Time{}, false
	}
	seconds, err := number.Float64()
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0), true
}

// sessionToken finds the token in what a cookie holds: the token itself, or a
// session as @supabase/ssr writes it, as JSON or as base64url of that.
func sessionToken(value string) (string, error) {
	value, err := url.PathUnescape(value)
	if err != nil {
		return "", errors.New("the cookie is not encoded properly")
	}
	if encoded, ok := strings.CutPrefix(value, "base64-"); ok {
		decoded, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(encoded, "="))
		if err != nil {
			return "", errors.New("the cookie is not encoded properly")
		}
		value = string(decoded)
	}
	if !strings.HasPrefix(value, "{") {
		return value, nil
	}
	var session struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(value), &session); err != nil || session.AccessToken == "" {
		return "", errors.New("the cookie holds a session without access_token")
	}
	return session.AccessToken, nil
}

// Authority is what identities of the app's users are kept under.
func (j *JWT) Authority() string { return j.cfg.Issuer }

// SignInURL is described at issuer.App.
func (j *JWT) SignInURL(returnTo string) string { return j.cfg.Return.address(returnTo) }
