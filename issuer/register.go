package issuer

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	registerPath = "/oauth/register"

	clientSecretPrefix      = "gpt_cs_"
	registrationTokenPrefix = "gpt_rg_"

	maxRegistration = 32 << 10 // bytes

	// Some clients register anew for each connection, and many of their users
	// come from a few addresses; a thousand a second is no client.
	// SECURITY-CASES D-06.
	registrationLimit  = 60
	registrationWindow = 10 * time.Minute
	registrationKeys   = 10_000
	// wrongTokenLimit is for initial access tokens.
	wrongTokenLimit = 10
)

// registrationResponse is the answer about a client. Nothing in it is null, and
// a public client has no member about secrets (traps 9 and 10). RFC 7591 section
// 3.2.1, RFC 7592 section 3.
type registrationResponse struct {
	ClientID        string `json:"client_id"`
	IssuedAt        int64  `json:"client_id_issued_at"`
	Secret          string `json:"client_secret,omitempty"`
	SecretExpiresAt *int64 `json:"client_secret_expires_at,omitempty"` // with a secret; 0: never
	AccessToken     string `json:"registration_access_token,omitempty"`
	ConfigURI       string `json:"registration_client_uri"`
	clientMetadata
}

// handleRegister registers a client. RFC 7591 section 3.1.
func (s *Server) handleRegister(w http.ResponseWriter, r *http.Request) {
	// 1. May anybody?
	network := networkOf(s.origin(r).Address).String()
	if err := s.checkInitialAccessToken(r, network); err != nil {
		s.writeRegistrationError(w, r, err)
		return
	}
	if ok, retryAfter := s.registrations.Reserve(network); !ok {
		s.writeRegistrationError(w, r, &throttledError{retryAfter: retryAfter})
		return
	}
	// 2. What is said.
	_, m, err := s.readRegistration(w, r)
	if err != nil {
		s.writeRegistrationError(w, r, err)
		return
	}
	// 3. The client. Its names are of letters that need no encoding (trap 26).
	accessToken := registrationTokenPrefix + newCookieValue()
	registration := ClientRegistration{
		ClientID: DynamicClientPrefix + newCookieValue(), Name: m.Name, IssuedAt: s.cfg.Now(), AccessToken: sha256.Sum256([]byte(accessToken)),
	}
	secret := newClientSecret(m, &registration)
	if registration.Metadata, err = json.Marshal(m); err != nil {
		s.writeRegistrationError(w, r, fmt.Errorf("register client: %w", err))
		return
	}
	err = s.cfg.Store.RegisterClient(r.Context(), registration, s.registry.with.ClientTTL, s.origin(r))
	if err != nil {
		s.writeRegistrationError(w, r, fmt.Errorf("register client: %w", err))
		return
	}
	s.audit(r, "client registered", zap.String("client_id", registration.ClientID), zap.Strings("redirect_uris", m.RedirectURIs))
	s.writeRegistration(w, http.StatusCreated, registration, m, secret, accessToken)
}

// newClientSecret gives the client a secret if it authenticates with one, and
// returns it: it is shown once.
func newClientSecret(m clientMetadata, registration *ClientRegistration) string {
	if m.AuthMethod != methodBasic && m.AuthMethod != methodPost {
		return ""
	}
	secret := NewClientSecret()
	digest := HashClientSecret(secret)
	registration.Secret = &digest
	return secret
}

// checkInitialAccessToken asks for one of the owner's tokens, if there are any.
// RFC 7591 section 3.
func (s *Server) checkInitialAccessToken(r *http.Request, network string) error {
	tokens := s.registry.with.InitialAccessTokens
	if len(tokens) == 0 {
		return nil
	}
	if ok, retryAfter := s.wrongTokens.Reserve(network); !ok {
		return &throttledError{retryAfter: retryAfter}
	}
	presented := sha256.Sum256([]byte(bearerOf(r)))
	match := 0
	for _, token := range tokens {
		match |= subtle.ConstantTimeCompare(token[:], presented[:])
	}
	if match != 1 {
		return errRegistrationToken
	}
	s.wrongTokens.Release(network)
	return nil
}

var errRegistrationToken = &oauth.Error{Status: http.StatusUnauthorized, Code: oauth.CodeInvalidToken, Description: "The access token is missing or wrong."}

// bearerOf returns the token of the one Authorization field; empty: there is
// none. RFC 6750 section 2.1.
func bearerOf(r *http.Request) string {
	fields := r.Header.Values("Authorization")
	if len(fields) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return token
}

// readRegistration reads the metadata that a client sends of itself.
func (s *Server) readRegistration(w http.ResponseWriter, r *http.Request) (members map[string]json.RawMessage, m clientMetadata, err error) {
	types := r.Header.Values("Content-Type")
	mediaType := ""
	if len(types) == 1 {
		mediaType, _, _ = mime.ParseMediaType(types[0])
	}
	if mediaType != "application/json" || r.Header.Get("Content-Encoding") != "" || r.URL.RawQuery != "" {
		return nil, m, invalidMetadata("The body must be application/json.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRegistration))
	if err != nil {
		e := unreadBody(err)
		e.Code = oauth.CodeInvalidClientMetadata
		return nil, m, e
	}
	if members, err = readJSONObject(body); err != nil {
		return nil, m, invalidMetadata("The body is not a JSON object with each member once.")
	}
	m, refused := s.readClientMetadata(members, methodBasic)
	if refused != nil {
		return nil, m, refused
	}
	switch m.AuthMethod {
	case methodNone, methodBasic, methodPost:
	case methodPrivateKeyJWT:
		if !m.hasKeys() {
			return nil, m, invalidMetadata("The method private_key_jwt needs jwks or jwks_uri.")
		}
	default:
		return nil, m, invalidMetadata("The token_endpoint_auth_method is not supported.")
	}
	if slices.ContainsFunc(m.RedirectURIs, s.cfg.Policies.Denies) {
		return nil, m, &oauth.Error{Code: oauth.CodeInvalidRedirectURI, Description: "Clients with this redirect URI cannot register here."}
	}
	return members, m, nil
}

// writeRegistration answers with the client as it is kept.
func (s *Server) writeRegistration(w http.ResponseWriter, status int, registration ClientRegistration, m clientMetadata, secret, accessToken string) {
	response := registrationResponse{
		ClientID: registration.ClientID, IssuedAt: registration.IssuedAt.Unix(), Secret: secret, AccessToken: accessToken,
		ConfigURI: s.endpoint(registerPath) + "/" + registration.ClientID, clientMetadata: m,
	}
	if secret != "" {
		response.SecretExpiresAt = new(int64)
	}
	writeJSON(w, status, response)
}

// writeRegistrationError is writeError for endpoints with a bearer token.
func (s *Server) writeRegistrationError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errRegistrationToken) {
		challenge := `Bearer realm="oauth"`
		if r.Header.Get("Authorization") != "" { // else no error code: RFC 6750 section 3.1
			challenge += `, error="invalid_token"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
	}
	s.writeError(w, r, err)
}

// dynamicClient returns a client that registered dynamically. What it said is
// checked again by the rules of today.
func (r *registry) dynamicClient(ctx context.Context, clientID string) (*Client, error) {
	registration, err := r.server.cfg.Store.FindRegistration(ctx, clientID)
	if err != nil {
		return nil, fmt.Errorf("find registration: %w", err)
	}
	m, err := r.server.readStored(registration)
	if err != nil {
		r.log("registered client refused", clientID, err)
		return nil, ErrNotFound
	}
	client := m.client(clientID, RegisteredByItself)
	// SDKs register with the scope of the first challenge and ask for more when a
	// later one names more. A bound that a client sets itself, and could replace by
	// registering again, would protect nobody and end that.
	client.DefaultScopes, client.Scopes = client.Scopes, nil
	if registration.Secret != nil {
		client.SecretDigests = []Digest{*registration.Secret}
	}
	if m.JWKSURI != "" && m.AuthMethod == methodPrivateKeyJWT {
		client.JWKS = r.keys.at(m.JWKSURI)
	}
	return client, nil
}

func (s *Server) readStored(registration ClientRegistration) (clientMetadata, error) {
	members, err := readJSONObject(registration.Metadata)
	if err != nil {
		return clientMetadata{}, err
	}
	m, refused := s.readClientMetadata(members, methodBasic)
	if refused != nil {
		return clientMetadata{}, refused
	}
	return m, nil
}
