package issuer

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	grantAuthorizationCode = "authorization_code"
	grantRefreshToken      = "refresh_token"
	grantClientCredentials = "client_credentials"
	grantDeviceCode        = "urn:ietf:params:oauth:grant-type:device_code"
	grantTokenExchange     = "urn:ietf:params:oauth:grant-type:token-exchange"
	grantJWTBearer         = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// GrantTypes returns every grant type that the server knows.
func GrantTypes() []string {
	return []string{grantAuthorizationCode, grantRefreshToken, grantClientCredentials, grantDeviceCode, grantTokenExchange, grantJWTBearer}
}

// offers reports whether the grant type is on here: Config.Grants.
func (s *Server) offers(grant string) bool { return slices.Contains(s.cfg.Grants, grant) }

var errGrantNotAllowed = &oauth.Error{Code: oauth.CodeUnauthorizedClient, Description: "The client may not use this grant."}

// tokenResponse is a successful answer. RFC 6749 section 5.1.
type tokenResponse struct {
	AccessToken string `json:"access_token"`
	// IssuedTokenType: of a token exchange only. RFC 8693 section 2.2.1.
	IssuedTokenType string `json:"issued_token_type,omitempty"`
	TokenType       string `json:"token_type"`
	ExpiresIn       int64  `json:"expires_in"`
	RefreshToken    string `json:"refresh_token,omitempty"`
	IDToken         string `json:"id_token,omitempty"` // OpenID Connect Core section 3.1.3.3
	Scope           string `json:"scope,omitempty"`
	// Resource: of an identity assertion that names resources only.
	Resource string `json:"resource,omitempty"`

	session Session // for the log
}

// tokenRequest is a request whose client is authenticated.
type tokenRequest struct {
	client    *Client
	params    parameters
	resources []string
	origin    Origin
	proof     *dpop.Proof // nil: none
}

// handleToken is the token endpoint. RFC 6749 section 3.2.
func (s *Server) handleToken(w http.ResponseWriter, r *http.Request) {
	// 1. What is said, once.
	params, resources, err := readForm(w, r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if grant := params["grant_type"]; grant != "" { // "" was counted
		if err := s.count(r.Context(), PerAddress, s.addressKey(r), grant); err != nil {
			s.writeError(w, r, err)
			return
		}
	}
	// 2. Who says it.
	client, err := s.authenticateClient(r, params)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	presented := presentedGrant(client, params)
	if err := s.checkDeadGrant(presented); err != nil {
		s.writeError(w, r, err)
		return
	}
	// 3. The key that its tokens shall be bound to.
	proof, err := s.proofOf(w, r, client)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	// 4. The grant.
	req := tokenRequest{client, params, resources, s.origin(r), proof}
	var response *tokenResponse
	switch grant := params["grant_type"]; {
	case grant == "":
		err = oauth.InvalidRequest("The grant_type is missing.")
	case !s.offers(grant):
		err = &oauth.Error{Code: oauth.CodeUnsupportedGrantType, Description: "The grant_type is not supported."}
	case !slices.Contains(client.Grants, grant):
		err = errGrantNotAllowed
	case grant == grantAuthorizationCode:
		response, err = s.grantCode(r.Context(), req)
	case grant == grantRefreshToken:
		response, err = s.grantRefresh(r.Context(), req)
	case grant == grantClientCredentials:
		response, err = s.grantClientCredentials(r.Context(), req)
	case grant == grantDeviceCode:
		response, err = s.grantDevice(r.Context(), req)
	case grant == grantTokenExchange:
		response, err = s.grantTokenExchange(r.Context(), req)
	case grant == grantJWTBearer:
		response, err = s.grantIdentityAssertion(r, req)
	}
	s.tallyGrant(params["grant_type"], err)
	s.noteDeadGrant(presented, err)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.audit(r, "token issued", zap.String("grant_type", params["grant_type"]), zap.String("client_id", client.ID),
		zap.String("session_id", response.session.ID))
	writeJSON(w, http.StatusOK, response)
}

// writeError turns an error into the answer of a direct endpoint. What is not
// an *oauth.Error is a fault behind us: the client hears "come again", the log
// why.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var e *oauth.Error
	var throttled *throttledError
	switch {
	case errors.As(err, &throttled):
		e = tooMany(throttled)
		w.Header().Set("Retry-After", strconv.Itoa(ceilSeconds(throttled.retryAfter)))
	case !errors.As(err, &e):
		e = oauth.TemporarilyUnavailable()
		w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(3)))
		s.logError(r, err)
	}
	if e.Code == oauth.CodeInvalidClient && r.Header.Get("Authorization") != "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="oauth", charset="UTF-8"`)
	}
	s.audit(r, "request refused: "+e.Code)
	s.tallyRefusal(r, reasonOf(err))
	writeJSON(w, e.HTTPStatus(), map[string]string{"error": e.Code, "error_description": e.Description})
}

// tooMany is what the client hears. A device that polls knows slow_down, and takes
// what it does not know for the end. RFC 8628 section 3.5.
func tooMany(t *throttledError) *oauth.Error {
	switch {
	case t.rate && t.grant == grantDeviceCode:
		return errSlowDown
	case t.rate:
		return &oauth.Error{Status: http.StatusTooManyRequests, Code: oauth.CodeTemporarilyUnavailable, Description: "Too many requests. Retry-After says in how many seconds the next one passes."}
	}
	return &oauth.Error{Status: http.StatusTooManyRequests, Code: oauth.CodeTemporarilyUnavailable, Description: "Too many failed attempts. Try again later."}
}

// writeJSON writes an answer that nobody may keep. RFC 6749 section 5.1.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // strings and numbers only: cannot happen
		status, body = http.StatusInternalServerError, []byte(`{"error":"server_error"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// respond mints the tokens of a session as it stands after the grant.
func (s *Server) respond(req tokenRequest, session Session, resource string, scopes oauth.ScopeSet) (*tokenResponse, error) {
	// Whatever the grant was for, and whenever: no more than the client may have now.
	scopes = scopes.Intersect(s.cfg.Catalog.Expand(s.clientScopes(req.client)))
	access, expiresIn, err := s.mintAccessToken(session, resource, scopes, req.thumbprint(), s.accessTokenTTL(req.client))
	if err != nil {
		return nil, err
	}
	response := &tokenResponse{AccessToken: access, TokenType: req.tokenType(), ExpiresIn: expiresIn, Scope: scopes.String(), session: session}
	if mayRefresh(req.client) && session.UserID != session.ClientID {
		if response.RefreshToken, err = s.cfg.Secrets.mintRefreshToken(refreshToken{session.ID, session.Counter}); err != nil {
			return nil, err
		}
	}
	if s.cfg.OpenID && scopes.Contains(oauth.ScopeOpenID) {
		if response.IDToken, err = s.mintIDToken(session, scopes, access, time.Duration(expiresIn)*time.Second); err != nil {
			return nil, err
		}
	}
	return response, nil
}

func mayRefresh(client *Client) bool { return slices.Contains(client.Grants, grantRefreshToken) }

// sessionLifetime bounds a session that a user allowed the client.
func (s *Server) sessionLifetime(req tokenRequest) SessionLifetime {
	client := req.client
	return SessionLifetime{
		TTL:            orDuration(client.RefreshTokenTTL, s.cfg.RefreshTokenTTL),
		IdleTTL:        orDuration(client.RefreshIdleTTL, s.cfg.RefreshIdleTTL),
		AccessTokenTTL: s.accessTokenTTL(client),
		Limit:          s.cfg.SessionLimit,
		DPoPKey:        req.refreshKey(),
	}
}

func (s *Server) accessTokenTTL(client *Client) time.Duration {
	return orDuration(client.AccessTokenTTL, s.cfg.AccessTokenTTL)
}

func (s *Server) refreshGrace(client *Client) time.Duration {
	return orDuration(client.RefreshGrace, *s.cfg.RefreshGrace)
}

func orDuration(own *time.Duration, otherwise time.Duration) time.Duration {
	if own != nil {
		return *own
	}
	return otherwise
}

// hasPrefixAndBound keeps obviously foreign bytes from costing a look-up.
func hasPrefixAndBound(token, prefix string, limit int) bool {
	return len(token) <= limit && strings.HasPrefix(token, prefix)
}
