package issuer

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// HashClientSecret is the digest under which a client secret is kept. Secrets
// are random, so that a fast hash is enough.
func HashClientSecret(secret string) Digest { return sha256.Sum256([]byte(secret)) }

// NewClientSecret makes a client secret. It is shown once, and kept as its hash.
func NewClientSecret() string { return clientSecretPrefix + newCookieValue() }

// clientCredentials are what a request shows of its client.
type clientCredentials struct {
	id, secret string
	// alternative is the secret taken as it came, where form-decoding changed
	// it: real clients often do not encode (trap 26).
	alternativeID, alternative string
	method                     string
	// assertion of private_key_jwt; id is what it claims, not yet proven.
	assertion clientAssertion
}

const (
	methodNone          = "none"
	methodBasic         = "client_secret_basic"
	methodPost          = "client_secret_post"
	methodPrivateKeyJWT = "private_key_jwt"
)

var errClientAuthentication = oauth.InvalidClient("Client authentication failed.")

// authenticateClient establishes the client of a request to the token or
// revocation endpoint. Unknown, disabled, wrong secret, wrong method: one
// answer, after the same work. RFC 6749 sections 2.3 and 3.2.1.
func (s *Server) authenticateClient(r *http.Request, p parameters) (*Client, error) {
	c, err := readCredentials(r, p)
	if err != nil {
		return nil, err
	}
	// Guessing is throttled by client and address, so that nobody locks a client
	// out for others.
	throttleKey := c.id + " " + networkOf(s.origin(r).Address).String()
	if ok, retryAfter := s.clientFailures.Allow(throttleKey); !ok {
		return nil, &throttledError{retryAfter: retryAfter}
	}
	client, err := s.cfg.Clients.Client(r.Context(), c.id)
	if errors.Is(err, ErrNotFound) && c.alternativeID != c.id {
		client, err = s.cfg.Clients.Client(r.Context(), c.alternativeID)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	if c.method == methodPrivateKeyJWT {
		err = s.checkAssertion(r.Context(), client, c.assertion)
	} else if !credentialsMatch(client, c) {
		err = errClientAuthentication
	}
	if errors.Is(err, errClientAuthentication) {
		s.clientFailures.Fail(throttleKey)
	}
	if err == nil {
		err = s.count(r.Context(), PerClient, client.ID, "", p["grant_type"])
	}
	if err != nil {
		return nil, err
	}
	return client, nil
}

// credentialsMatch compares in constant time, also with a client that is not
// there.
func credentialsMatch(client *Client, c clientCredentials) bool {
	digests := []Digest{{}}
	if client != nil && len(client.SecretDigests) > 0 {
		digests = client.SecretDigests
	}
	presented, alternative := HashClientSecret(c.secret), HashClientSecret(c.alternative)
	match := 0
	for _, digest := range digests {
		match |= subtle.ConstantTimeCompare(digest[:], presented[:])
		match |= subtle.ConstantTimeCompare(digest[:], alternative[:])
	}
	switch {
	case client == nil || !slices.Contains(client.AuthMethods, c.method):
		return false
	case c.method == methodNone:
		return len(client.SecretDigests) == 0
	}
	return len(client.SecretDigests) > 0 && match == 1
}

// readCredentials reads the one method a request uses.
func readCredentials(r *http.Request, p parameters) (clientCredentials, error) {
	fields := r.Header.Values("Authorization")
	_, hasSecret := p["client_secret"]
	hasAssertion := p["client_assertion"] != "" || p["client_assertion_type"] != ""
	switch {
	case len(fields) > 1 || (len(fields) == 1 && (hasSecret || hasAssertion)) || (hasSecret && hasAssertion):
		return clientCredentials{}, oauth.InvalidRequest("Use one method of client authentication.")
	case hasAssertion:
		assertion, ok := readAssertion(p)
		if !ok {
			return clientCredentials{}, errClientAuthentication
		}
		id := assertion.claims.Subject
		return clientCredentials{id: id, alternativeID: id, method: methodPrivateKeyJWT, assertion: assertion}, nil
	case len(fields) == 1:
		c, ok := parseBasic(fields[0])
		if !ok {
			return clientCredentials{}, errClientAuthentication
		}
		if id, sent := p["client_id"]; sent && id != c.id && id != c.alternativeID {
			return clientCredentials{}, errClientAuthentication
		}
		return c, nil
	case p["client_id"] == "":
		return clientCredentials{}, errClientAuthentication
	case hasSecret:
		secret := p["client_secret"]
		return clientCredentials{id: p["client_id"], secret: secret, alternativeID: p["client_id"], alternative: secret, method: methodPost}, nil
	default:
		return clientCredentials{id: p["client_id"], alternativeID: p["client_id"], method: methodNone}, nil
	}
}

// parseBasic reads an Authorization field of scheme Basic. Identifier and
// secret are form-encoded inside. RFC 6749 section 2.3.1.
func parseBasic(field string) (clientCredentials, bool) {
	scheme, encoded, ok := strings.Cut(field, " ")
	if !ok || !strings.EqualFold(scheme, "Basic") {
		return clientCredentials{}, false
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return clientCredentials{}, false
	}
	id, secret, ok := strings.Cut(string(raw), ":")
	if !ok || id == "" {
		return clientCredentials{}, false
	}
	c := clientCredentials{id: id, secret: secret, alternativeID: id, alternative: secret, method: methodBasic}
	if decoded, err := url.QueryUnescape(id); err == nil {
		c.id = decoded
	}
	if decoded, err := url.QueryUnescape(secret); err == nil {
		c.secret = decoded
	}
	if secret == "" {
		// An empty secret may as well be left out (RFC 6749 section 2.3.1): libraries
		// that know only this method send it for public clients.
		c.method = methodNone
	}
	return c, c.id != ""
}
