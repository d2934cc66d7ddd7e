//go:build linux

package cluster

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/oauth2"
)

// Browser is a user at a browser, who signs in once and allows what is asked.
// It may be used by many goroutines, as by many tabs.
type Browser struct {
	Email string

	cluster *Cluster
	jar     http.CookieJar
}

// Code is an authorization code and what its client keeps for it.
type Code struct{ Code, Verifier string }

// SignIn makes the user and signs in.
func (c *Cluster) SignIn(t testing.TB, email string) *Browser {
	t.Helper()
	return c.SignInAt(t, c.Balanced(), email)
}

// SignInAt is SignIn at an endpoint.
func (c *Cluster) SignInAt(t testing.TB, e Endpoint, email string) *Browser {
	t.Helper()
	c.AddUser(t, email)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &Browser{Email: email, cluster: c, jar: jar}
	if _, err := b.Authorize(t.Context(), e, "jobs:read"); err != nil {
		t.Fatalf("sign in as %s: %v", email, err)
	}
	return b
}

// Connect goes from the authorization endpoint to a token; e nil: by whatever
// node.
func (b *Browser) Connect(t testing.TB, e Endpoint, scopes ...string) Token {
	t.Helper()
	if e == nil {
		e = b.cluster.Balanced()
	}
	code, err := b.Authorize(t.Context(), e, scopes...)
	if err != nil {
		t.Fatalf("authorize: %v", err)
	}
	token, answer := Redeem(t.Context(), e, code)
	if !answer.OK() {
		t.Fatalf("redeem: %s", answer)
	}
	return token
}

// RefusedError is an answer of the authorization endpoint that leads nowhere.
type RefusedError struct {
	Status int    // 200: a page that is not understood, or an error for the client
	Reason string // what the client was told
}

func (e *RefusedError) Error() string { return fmt.Sprintf("no code: %d %s", e.Status, e.Reason) }

// maxPages is more than an honest way from authorize to the code has.
const maxPages = 6

// Authorize gets a code, by whatever pages are in the way.
func (b *Browser) Authorize(ctx context.Context, e Endpoint, scopes ...string) (Code, error) {
	config := oauth2.Config{ClientID: ClientID, RedirectURL: redirectURI, Scopes: scopes, Endpoint: oauth2.Endpoint{AuthURL: b.cluster.Issuer + "/oauth/authorize"}}
	code, state := Code{Verifier: oauth2.GenerateVerifier()}, rand.Text()
	address, form := config.AuthCodeURL(state, oauth2.S256ChallengeOption(code.Verifier)), url.Values(nil)
	client := *e.via()
	client.Jar = b.jar
	for range maxPages {
		answer := visit(ctx, &client, address, form)
		switch {
		case answer.Err != nil:
			return Code{}, answer.Err
		case answer.Status/100 == 3:
			to := answer.Header.Get("Location")
			if strings.HasPrefix(to, redirectURI+"?") {
				return code.from(to, state)
			}
			address, form = b.absolute(to), nil
		case answer.Status == http.StatusOK:
			var err error
			if address, form, err = b.fillIn(string(answer.Body)); err != nil {
				return Code{}, err
			}
		default:
			return Code{}, &RefusedError{Status: answer.Status}
		}
	}
	return Code{}, &RefusedError{http.StatusOK, "too many pages"}
}

func visit(ctx context.Context, client *http.Client, address string, form url.Values) Answer {
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return Answer{Err: err}
	}
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return do(client, request)
}

func (c Code) from(address, state string) (Code, error) {
	u, err := url.Parse(address)
	if err != nil {
		return Code{}, err
	}
	query := u.Query()
	if c.Code = query.Get("code"); c.Code == "" || query.Get("state") != state {
		return Code{}, &RefusedError{http.StatusOK, query.Get("error")}
	}
	return c, nil
}

func (b *Browser) absolute(address string) string {
	if strings.HasPrefix(address, "/") {
		return b.cluster.Issuer + address
	}
	return address
}

var (
	formAction = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)
	hidden     = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
)

// fillIn does what a person does at the sign-in and the consent page.
func (b *Browser) fillIn(page string) (address string, form url.Values, err error) {
	for part := range strings.SplitSeq(page, "</form>") {
		action := formAction.FindStringSubmatch(part)
		form = url.Values{}
		switch {
		case action == nil:
			continue
		case strings.Contains(part, `name="email"`):
			form = url.Values{"email": {b.Email}, "password": {Password}}
		case strings.Contains(part, `name="decision"`):
			form = url.Values{"decision": {"allow"}}
		default:
			continue
		}
		for _, field := range hidden.FindAllStringSubmatch(part, -1) {
			form.Set(field[1], html.UnescapeString(field[2]))
		}
		return b.absolute(html.UnescapeString(action[1])), form, nil
	}
	return "", nil, &RefusedError{http.StatusOK, fmt.Sprintf("a page without a form to go on: %.300s", page)}
}

// sessionOf reads the sid of an access token, unverified.
func sessionOf(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("an access token of %d parts", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var claims struct {
		Session string `json:"sid"`
	}
	err = json.Unmarshal(payload, &claims)
	return claims.Session, err
}
