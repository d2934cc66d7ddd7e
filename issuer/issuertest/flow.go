package issuertest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Param changes the parameters of a request.
type Param func(url.Values)

// Set gives the parameter this value.
func Set(name, value string) Param { return func(v url.Values) { v.Set(name, value) } }

// Add sends the parameter once more.
func Add(name, value string) Param { return func(v url.Values) { v.Add(name, value) } }

// Omit leaves the parameter out.
func Omit(name string) Param { return func(v url.Values) { v.Del(name) } }

// NewVerifier returns a code_verifier of 43 characters. RFC 7636 section 4.1.
func NewVerifier() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	return base64.RawURLEncoding.EncodeToString(random)
}

// Challenge is the S256 code_challenge of a verifier. RFC 7636 section 4.2.
func Challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Authorization returns the parameters of a good authorization request of the
// client for jobs:read, and the verifier that belongs to it.
func (s *Scene) Authorization(clientID string, params ...Param) (query url.Values, verifier string) {
	verifier = NewVerifier()
	query = url.Values{
		"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {s.Clients.redirectOf(clientID)},
		"scope": {"jobs:read"}, "state": {"a state of the client"},
		"code_challenge": {Challenge(verifier)}, "code_challenge_method": {"S256"},
	}
	for _, param := range params {
		param(query)
	}
	return query, verifier
}

// Code has ada sign in with a new browser and allow what the client asks for.
// It returns the code and its verifier.
func (s *Scene) Code(t testing.TB, clientID string, params ...Param) (code, verifier string) {
	t.Helper()
	query, verifier := s.Authorization(clientID, params...)
	return s.Browser(t).Get("/oauth/authorize?" + query.Encode()).SignIn().Allow().Code(), verifier
}

// Tokens are what the token endpoint gave.
type Tokens struct {
	Access, Refresh, Scope string
	ExpiresIn              int
}

// Tokens has ada allow what the client asks for, and redeems the code.
func (s *Scene) Tokens(t testing.TB, clientID string, params ...Param) Tokens {
	t.Helper()
	code, verifier := s.Code(t, clientID, params...)
	query, _ := s.Authorization(clientID, params...)
	// An empty parameter counts as left out.
	form := url.Values{"code_verifier": {verifier}, "redirect_uri": {query.Get("redirect_uri")}}
	if query.Get("code_challenge") == "" {
		form.Del("code_verifier")
	}
	return s.Redeem(t, clientID, code, form)
}

// Redeem exchanges the code for tokens, with more parameters in form.
func (s *Scene) Redeem(t testing.TB, clientID, code string, form url.Values) Tokens {
	t.Helper()
	body := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {clientID}, "redirect_uri": {s.Clients.redirectOf(clientID)}}
	if s.Clients.confidential(clientID) {
		body.Set("client_secret", Secret)
	}
	for name, values := range form {
		body[name] = values
	}
	r := s.PostForm("/oauth/token", body)
	if r.Status != http.StatusOK {
		t.Fatalf("redeem a code of %s: %d %s", clientID, r.Status, r.Body)
	}
	return r.Tokens()
}

// Response is the answer of an endpoint that speaks to clients.
type Response struct {
	Status int
	Header http.Header
	JSON   map[string]any // nil: the body is no JSON object
	Body   string
}

// Error is the `error` of the answer; empty: none.
func (r Response) Error() string { return r.text("error") }

// Tokens reads a successful answer of the token endpoint.
func (r Response) Tokens() Tokens {
	seconds, _ := r.JSON["expires_in"].(float64)
	return Tokens{r.text("access_token"), r.text("refresh_token"), r.text("scope"), int(seconds)}
}

func (r Response) text(member string) string {
	value, _ := r.JSON[member].(string)
	return value
}

// Auth adds credentials, or anything else, to a request.
type Auth func(*http.Request)

// Basic authenticates by client_secret_basic: both parts form-encoded (RFC 6749
// section 2.3.1).
func Basic(clientID, secret string) Auth {
	return func(r *http.Request) { r.SetBasicAuth(url.QueryEscape(clientID), url.QueryEscape(secret)) }
}

// Header sets a header.
func Header(name, value string) Auth {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// PostForm posts to an endpoint of the server.
func (s *Scene) PostForm(path string, form url.Values, auth ...Auth) Response {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.URL+path, strings.NewReader(form.Encode()))
	s.must(err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, add := range auth {
		add(r)
	}
	return s.Do(r)
}

// Get gets a document of the server.
func (s *Scene) Get(path string, auth ...Auth) Response {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodGet, s.URL+path, nil)
	s.must(err)
	for _, add := range auth {
		add(r)
	}
	return s.Do(r)
}

// Do sends any request, without cookies, and follows no redirect.
func (s *Scene) Do(r *http.Request) Response {
	s.t.Helper()
	response, err := s.http.Do(r)
	s.must(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	s.must(err)
	answer := Response{Status: response.StatusCode, Header: response.Header, Body: string(body)}
	_ = json.Unmarshal(body, &answer.JSON) // an HTML page stays without
	return answer
}

// SendJSON sends a document, or text as it is, to an endpoint of the server.
func (s *Scene) SendJSON(method, path string, document any, auth ...Auth) Response {
	s.t.Helper()
	body, raw := document.(string)
	if !raw {
		text, err := json.Marshal(document)
		s.must(err)
		body = string(text)
	}
	r, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	s.must(err)
	r.Header.Set("Content-Type", "application/json")
	for _, add := range auth {
		add(r)
	}
	return s.Do(r)
}
