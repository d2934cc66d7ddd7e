package caddymodule

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// rehearsalKey is the kid of the key that stands in for those in the database.
// It is known to this process alone.
const rehearsalKey = "rehearsal"

// tokenFor returns the access token of a request for the resource, and what it
// takes for granted.
func (h *rehearsal) tokenFor(q rehearsedRequest, resource string) (string, []string, error) {
	if q.token != "" {
		token, notes, err := h.givenToken(q.token)
		if err == nil {
			h.session.Claims, err = claimsOf(q.user)
		}
		return token, notes, err
	}
	client, notes, err := h.clientFor(q.client)
	if err != nil {
		return "", nil, err
	}
	for _, name := range q.scopes {
		if _, ok := h.app.catalog.Lookup(name); !ok {
			return "", nil, fmt.Errorf("scope %s is not declared; declared are %s", name, h.app.catalog.Names())
		}
	}
	held, err := claimsOf(q.user)
	if err != nil {
		return "", nil, err
	}
	scopes := oauth.NewScopeSet(q.scopes...)
	h.session = &validator.Session{UserID: "user", ClientID: client, Scopes: scopes, Claims: held}
	now := time.Now()
	claims := map[string]any{
		"iss": h.app.issuer, "aud": resource, "sub": "user", "client_id": client, "sid": uuid.NewString(), "jti": uuid.NewString(),
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
	if len(scopes) > 0 { // as tokens are made
		claims["scope"] = scopes.String()
	}
	token, err := h.sign(claims)
	return token, notes, err
}

// claimsOf reads what a user is said to have.
func claimsOf(texts []string) (oauth.UserClaims, error) {
	claims := make(oauth.UserClaims)
	for _, text := range texts {
		has, err := oauth.ParseUserRequirement(text)
		if err != nil {
			return nil, err
		}
		claims[has.Claim] = append(claims[has.Claim], has.Values...)
	}
	return claims, nil
}

func (h *rehearsal) clientFor(id string) (string, []string, error) {
	switch {
	case id != "" && h.app.clientAllowed(id):
		return id, nil, nil
	case id != "":
		return "", nil, fmt.Errorf("client %s is not registered in the configuration", id)
	case len(h.app.Clients) > 0:
		return h.app.Clients[0].ID, nil, nil
	}
	h.app.clients["client"] = &issuer.Client{ID: "client"}
	return "client", []string{"the configuration has no client; one that registered itself is taken for granted"}, nil
}

// givenToken reads a token that somebody sent. Signed by a key of the
// configuration it is decided as it is; otherwise its claims are, under a key of
// ours, because the keys are in the database.
func (h *rehearsal) givenToken(token string) (string, []string, error) {
	notes := []string{"offline nobody can say whether the session still lives: it is taken for granted"}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", nil, errors.New("--token: the file holds no access token (three parts with dots between them)")
	}
	var head struct {
		KID string `json:"kid"`
	}
	var claims map[string]any
	for i, into := range []any{&head, &claims} {
		decoded, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(decoded, into)
		}
		if err != nil {
			return "", nil, errors.New("--token: the file holds no access token: its header or claims are not base64url of JSON")
		}
	}
	text := func(name string) string { s, _ := claims[name].(string); return s }
	scopes, err := oauth.ParseScope(text("scope"))
	if err != nil {
		return "", nil, fmt.Errorf("--token: %w", err)
	}
	h.session = &validator.Session{UserID: text("sub"), ClientID: text("client_id"), Scopes: scopes}
	if _, known := h.VerificationKey(head.KID); known && head.KID != rehearsalKey {
		return token, notes, nil
	}
	notes = append(notes, "the signature was not checked: the configuration does not hold the key "+head.KID)
	if claims["cnf"] != nil {
		delete(claims, "cnf")
		notes = append(notes, "the token is bound to a key (DPoP): a good proof is taken for granted")
	}
	for _, name := range []string{"iat", "exp", "nbf"} { // numbers came as float64
		if n, ok := claims[name].(float64); ok {
			claims[name] = int64(n)
		}
	}
	token, err = h.sign(claims)
	return token, notes, err
}

// sign makes an access token that the gates of this rehearsal verify: ES256,
// with the lower s. RFC 9068 section 2.1.
func (h *rehearsal) sign(claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"ES256","kid":"`+rehearsalKey+`","typ":"at+jwt"}`)) + "." + encode(payload)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, h.key, digest[:])
	if err != nil {
		return "", err
	}
	order := elliptic.P256().Params().N
	if half := new(big.Int).Rsh(order, 1); s.Cmp(half) > 0 {
		s.Sub(order, s)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + encode(signature), nil
}
