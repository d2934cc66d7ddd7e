package issuer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	requestURIPrefix = "urn:ietf:params:oauth:request_uri:"
	pushTTL          = time.Minute

	// A public client proves nothing, and each request is a row for a minute: so
	// many from one network.
	pushLimit  = 60
	pushWindow = pushTTL
	pushKeys   = 10_000
)

// pushedRequest is the answer of the endpoint. RFC 9126 section 2.2.
type pushedRequest struct {
	RequestURI string `json:"request_uri"`
	ExpiresIn  int64  `json:"expires_in"`
}

// handlePush takes the parameters of an authorization request from the client
// itself, so that they do not pass through the browser. They are checked here
// and again when they are used: what the client may have changes. RFC 9126.
func (s *Server) handlePush(w http.ResponseWriter, r *http.Request) {
	// 1. What is said, and who says it.
	params, resources, err := readForm(w, r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	client, err := s.authenticateClient(r, params)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if err := s.pushProof(w, r, client, params); err != nil {
		s.writeError(w, r, err)
		return
	}
	// 2. Everything that the authorization endpoint would refuse.
	values := pushedValues(client, params, resources)
	if err := s.checkPushed(client, values); err != nil {
		s.writeError(w, r, err)
		return
	}
	if !client.Confidential() {
		if ok, retryAfter := s.pushes.Reserve(networkOf(s.origin(r).Address).String()); !ok {
			s.writeError(w, r, &throttledError{retryAfter: retryAfter})
			return
		}
	}
	// 3. The reference.
	uri := requestURIPrefix + newCookieValue()
	err = s.cfg.Store.PushRequest(r.Context(), sha256.Sum256([]byte(uri)), client.ID, values.Encode(), pushTTL)
	switch {
	case errors.Is(err, ErrNotFound): // disabled meanwhile
		s.writeError(w, r, errClientAuthentication)
	case err != nil:
		s.writeError(w, r, fmt.Errorf("push authorization request: %w", err))
	default:
		writeJSON(w, http.StatusCreated, pushedRequest{uri, int64(pushTTL / time.Second)})
	}
}

// pushProof binds the code to the key that the push proves to hold, as dpop_jkt
// does, which must name the same if it is there. RFC 9449 section 10.1.
func (s *Server) pushProof(w http.ResponseWriter, r *http.Request, client *Client, params parameters) error {
	if len(r.Header.Values("DPoP")) == 0 { // a client that must send one may do so with the code
		return nil
	}
	proof, err := s.proofOf(w, r, client)
	if err != nil {
		return err
	}
	if key, sent := params["dpop_jkt"]; sent && key != proof.Thumbprint {
		return errProof
	}
	params["dpop_jkt"] = proof.Thumbprint
	return nil
}

// pushedValues are the parameters as the authorization endpoint reads them;
// what proved the client is not among them.
func pushedValues(client *Client, params parameters, resources []string) url.Values {
	values := url.Values{}
	for name, value := range params {
		values.Set(name, value)
	}
	for _, name := range []string{"client_secret", "client_assertion", "client_assertion_type"} {
		values.Del(name)
	}
	values.Set("client_id", client.ID)
	if len(resources) > 0 {
		values["resource"] = resources
	}
	return values
}

func (s *Server) checkPushed(client *Client, values url.Values) error {
	if values.Has("request_uri") { // RFC 9126 section 2.1
		return oauth.InvalidRequest("A pushed request cannot refer to another one.")
	}
	req, why := s.readTarget(client, values)
	if why != "" {
		return oauth.InvalidRequest("The redirect_uri is missing or not registered for the client.")
	}
	return s.readAuthorizationRequest(req, client, values)
}

// usePushedRequest puts the pushed parameters in the place of a request_uri of
// ours. Beside it only client_id counts, and must be that of the client that
// pushed (RFC 9126 section 4). Any other request goes on as it came. Not ok:
// answered with a page, since there is no redirect URI to trust.
func (s *Server) usePushedRequest(w http.ResponseWriter, r *http.Request, values url.Values) (_ url.Values, pushed, ok bool) {
	uris, clients := values["request_uri"], values["client_id"]
	if len(uris) != 1 || len(clients) != 1 || !hasPrefixAndBound(uris[0], requestURIPrefix, 256) {
		return values, false, true
	}
	encoded, err := s.cfg.Store.UsePushedRequest(r.Context(), sha256.Sum256([]byte(uris[0])), clients[0])
	switch {
	case errors.Is(err, ErrNotFound):
		s.brokenLink(w, r, "pushed")
		return nil, false, false
	case err != nil:
		s.unavailablePage(w, r, "use pushed authorization request", err)
		return nil, false, false
	}
	if values, err = url.ParseQuery(encoded); err != nil { // our own writing
		s.unavailablePage(w, r, "read pushed authorization request", err)
		return nil, false, false
	}
	return values, true, true
}
